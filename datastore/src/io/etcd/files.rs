//! The files that a connection needs. They are read for each connection and login anew, so that certificates and passwords can
//! be exchanged under a running daemon.

use super::address::{Address, Login, Tls};
use etcd_client::{Certificate, Identity, TlsOptions};
use std::path::Path;

/// Certificates and keys, as tonic takes them.
pub(super) fn tls(tls: &Tls) -> Result<TlsOptions, String> {
    let options = TlsOptions::new().ca_certificate(Certificate::from_pem(pem("ca", &tls.ca, "CERTIFICATE-----")?));
    let Some((certificate, key)) = &tls.own else { return Ok(options) };
    let certificate = pem("cert", certificate, "CERTIFICATE-----")?;
    Ok(options.identity(Identity::from_pem(certificate, pem("key", key, "PRIVATE KEY-----")?)))
}

/// The password: the file's first line.
pub(super) fn password(login: &Login) -> Result<String, String> {
    let text = read("passwordFile", &login.password_file)?;
    let password = text.lines().next().unwrap_or_default();
    if password.is_empty() {
        let file = login.password_file.display();
        return Err(format!("passwordFile {file} is empty; write the password of user {} into it", login.user));
    }
    Ok(password.to_owned())
}

/// All files that the URL names can be used.
pub(super) fn check(address: &Address) -> Result<(), String> {
    address.login.as_ref().map_or(Ok(()), |login| password(login).map(drop))
}

fn pem(field: &str, path: &Path, kind: &str) -> Result<String, String> {
    let text = read(field, path)?;
    let holds = text.lines().any(|line| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(kind));
    let wanted = kind.trim_end_matches('-').to_lowercase();
    holds
        .then_some(text)
        .ok_or_else(|| format!("{field} {} holds no {wanted} in PEM form; name another file", path.display()))
}

fn read(field: &str, path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| {
        format!("{field} {} cannot be read ({error}); name a file that this process can read", path.display())
    })
}
