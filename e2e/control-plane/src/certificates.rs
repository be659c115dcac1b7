//! A certificate authority for one test, and what it signs.

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A certificate authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
    /// Its certificate, PEM.
    pub certificate: PathBuf,
}

/// A certificate and its key, PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

impl Authority {
    /// Makes one whose files are in `directory`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn new(directory: &Path) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name("twill-test-ca", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let certificate = directory.join("ca.crt");
        write(&certificate, &issuer.pem())?;
        Ok(Self { issuer, directory: directory.to_owned(), certificate })
    }

    /// A server at loopback, and at these addresses.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn server(&self, common_name: &str, addresses: &[Ipv4Addr]) -> anyhow::Result<Identity> {
        let loopback = ["localhost", "127.0.0.1"].map(str::to_owned).into_iter();
        let names: Vec<String> = loopback.chain(addresses.iter().map(Ipv4Addr::to_string)).collect();
        self.sign(CertificateParams::new(names)?, common_name, &[], ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client: its user and groups, as Kubernetes and etcd read them from a certificate.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn client(&self, user: &str, groups: &[&str]) -> anyhow::Result<Identity> {
        self.sign(CertificateParams::default(), user, groups, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        user: &str,
        groups: &[&str],
        usage: ExtendedKeyUsagePurpose,
    ) -> anyhow::Result<Identity> {
        params.distinguished_name = name(user, groups);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        let signed = params.signed_by(&key, &self.issuer)?;
        let file = user.replace([':', '/'], "-");
        let certificate = self.directory.join(format!("{file}.crt"));
        write(&certificate, &signed.pem())?;
        Ok(Identity { certificate, key: self.write_key(&file, &key)? })
    }

    /// A key pair that signs tokens: the private key, and the public one.
    pub(crate) fn token_key(&self) -> anyhow::Result<(PathBuf, PathBuf)> {
        let key = KeyPair::generate()?;
        let public = self.directory.join("tokens.pub");
        write(&public, &key.public_key_pem())?;
        Ok((self.write_key("tokens", &key)?, public))
    }

    fn write_key(&self, name: &str, key: &KeyPair) -> anyhow::Result<PathBuf> {
        let path = self.directory.join(format!("{name}.key"));
        write(&path, &key.serialize_pem())?;
        Ok(path)
    }
}

fn name(user: &str, groups: &[&str]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for group in groups {
        name.push(DnType::OrganizationName, *group);
    }
    name.push(DnType::CommonName, user);
    name
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
    written.with_context(|| format!("writing {}", path.display()))
}
