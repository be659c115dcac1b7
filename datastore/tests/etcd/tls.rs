//! Certificates for tests, made by openssl.

use std::path::Path;
use std::process::Command;

/// `NAME.pem` and `NAME.key` of an authority of its own.
pub fn authority(directory: &Path, name: &str) {
    let (pem, key) = files(directory, name);
    let subject = format!("/CN={name}");
    run(openssl(&["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", &subject, "-keyout", &key, "-out", &pem]));
}

/// `NAME.pem` and `NAME.key`, signed by an authority, for 127.0.0.1 and as a client.
pub fn certificate(directory: &Path, authority: &str, name: &str) {
    let (pem, key) = files(directory, name);
    let (ca, ca_key) = files(directory, authority);
    let request = format!("{pem}.csr");
    let extensions = directory.join("extensions");
    std::fs::write(&extensions, "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n").unwrap();
    run(openssl(&["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]).args([
        "-subj",
        &format!("/CN={name}"),
        "-keyout",
        &key,
        "-out",
        &request,
    ]));
    run(openssl(&["x509", "-req", "-days", "2", "-CAcreateserial"])
        .args(["-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-out", &pem, "-extfile"])
        .arg(&extensions));
}

fn files(directory: &Path, name: &str) -> (String, String) {
    let file = |end: &str| directory.join(format!("{name}.{end}")).display().to_string();
    (file("pem"), file("key"))
}

fn openssl(arguments: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(arguments);
    command
}

fn run(command: &mut Command) {
    let done = command.output().expect("openssl is missing; apt-get install openssl");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
