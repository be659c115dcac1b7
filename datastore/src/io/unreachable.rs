//! Why a server cannot be reached, in the words of who must mend it.
//!
//! In flows what the libraries below say, which is of sockets and of TLS; out flow the server, what happened there, and what to check.

/// What libraries put before the words of those below them.
const WRAPPINGS: [&str; 5] = [
    "ServiceError: ",
    "client error (Connect): ",
    "client error (SendRequest): ",
    "transport error: ",
    "connection error: ",
];

/// Part of what is said below, what it means, and what to check.
const MEANINGS: [(&str, &str, &str); 16] = [
    ("Connection refused", "nothing listens there", "check address and port, and that the server runs"),
    ("lookup address", "the name cannot be resolved", "check the name in the URL, and this machine's resolver"),
    ("tls handshake eof", "it closes the connection in the TLS handshake", "check that this port speaks TLS"),
    ("InvalidContentType", "it answers without TLS", "check that this port speaks TLS, or write http://"),
    ("corrupt message", "it answers without TLS", "check that this port speaks TLS, or write http://"),
    ("UnknownIssuer", "its certificate is of another authority", "name the one that signed it, in PEM form"),
    ("BadSignature", "its certificate is of another authority", "name the one that signed it, in PEM form"),
    (
        "not valid for",
        "its certificate is for other names",
        "use one of those as the host, or have it certify this one",
    ),
    ("Expired", "its certificate has expired", "renew that, or correct this machine's clock"),
    ("NotValidYet", "its certificate is not valid yet", "correct this machine's clock"),
    ("UnknownCA", "it does not accept our certificate", "use one that its client authority signed"),
    ("CertificateRequired", "it wants a certificate of us", "name a certificate and its key"),
    ("received fatal alert", "it refuses our side of TLS", "check our certificate and key"),
    ("invalid compression flag", "it is no etcd, but some HTTP server", "check address and port"),
    ("broken pipe", "it ends the connection", "check address and port, and whether it speaks TLS (https://)"),
    ("unreachable", "there is no way to it", "check this machine's routes and the address"),
];

/// One sentence. What is not known here is told as it was said.
pub(super) fn unreachable(server: &str, said: &str) -> String {
    let mut said = said;
    while let Some(rest) = WRAPPINGS.iter().find_map(|wrapping| said.strip_prefix(wrapping)) {
        said = rest;
    }
    match MEANINGS.iter().find(|(part, _, _)| said.contains(part)) {
        Some((_, happened, check)) => format!("{server}: {happened} ({said}); {check}"),
        None => format!("{server}: {said}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_out_of_reach_is_named_with_what_happened_and_what_to_check() {
        let server = "https://10.0.0.1:6443";
        assert_eq!(
            unreachable(server, "ServiceError: client error (Connect): tls handshake eof"),
            "https://10.0.0.1:6443: it closes the connection in the TLS handshake (tls handshake eof); check that this port speaks TLS"
        );
        assert_eq!(
            unreachable(server, "transport error: invalid peer certificate: UnknownIssuer"),
            "https://10.0.0.1:6443: its certificate is of another authority (invalid peer certificate: UnknownIssuer); name the one \
             that signed it, in PEM form"
        );
        assert_eq!(unreachable(server, "transport error: something new"), "https://10.0.0.1:6443: something new");
    }
}
