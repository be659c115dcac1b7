//! Passwords of sessions, from Secrets. What cannot be used is a sentence, and no session: never one without a password.

use super::objects::Objects;
use k8s_openapi::api::core::v1::Secret;
use std::collections::BTreeSet;
use twill_crds::bgp::SecretKeyRef;
use twill_datastore::Key;

/// Octets that the kernel takes (tcp(7), TCP_MD5SIG).
const LONGEST: usize = 80;

/// The password that `reference` means.
///
/// # Errors
/// What is missing or wrong, without a word of what the Secret holds.
pub(super) fn password(reference: &SecretKeyRef, objects: &Objects) -> Result<String, String> {
    let SecretKeyRef { name, key } = reference;
    let namespace = &objects.namespace;
    let wrong = |field: &str, text: String| {
        Err(format!("password.secretKeyRef.{field}: {text}, so there is no session with this peer"))
    };
    let Some(secret) = objects.secrets.get(&Key::namespaced(namespace, name)) else {
        return wrong("name", format!("there is no Secret {name} of type Opaque in namespace {namespace}"));
    };
    let Some(octets) = secret.data.as_ref().and_then(|data| data.get(key)) else {
        return wrong("key", format!("Secret {name} has no entry {key} in its data"));
    };
    match std::str::from_utf8(&octets.0) {
        Ok(text) if text.is_empty() || text.len() > LONGEST => wrong(
            "key",
            format!("entry {key} of Secret {name} must have 1 to {LONGEST} octets, and has {}", text.len()),
        ),
        Ok(text) if text.contains(char::is_control) => wrong(
            "key",
            format!(
                "entry {key} of Secret {name} has a line break or another control character in it; write it without"
            ),
        ),
        Ok(text) => Ok(text.to_owned()),
        Err(_) => wrong("key", format!("entry {key} of Secret {name} is no text in UTF-8")),
    }
}

/// What of a Secret is kept: its name and its data.
pub(super) fn trimmed(secret: Secret) -> Secret {
    let mut kept = Secret { data: secret.data, ..Secret::default() };
    kept.metadata.name = secret.metadata.name;
    kept.metadata.namespace = secret.metadata.namespace;
    kept.metadata.resource_version = secret.metadata.resource_version;
    kept.metadata.uid = secret.metadata.uid;
    kept
}

/// The Secrets that BGPPeers name, with the entries that they name and no others: what may be kept in a file.
pub(super) fn referred(objects: &Objects) -> Vec<Secret> {
    let all = objects.peers.iter().filter_map(|(_, peer)| Some(peer.spec.password.as_ref()?.secret_key_ref.clone()));
    let references: BTreeSet<SecretKeyRef> = all.collect();
    let secrets = objects.secrets.iter().map(|(_, secret)| secret.as_ref().clone());
    let kept = secrets.filter_map(|mut secret| {
        let name = secret.metadata.name.clone()?;
        let data = secret.data.get_or_insert_default();
        data.retain(|key, _| references.contains(&SecretKeyRef { name: name.clone(), key: key.clone() }));
        (!data.is_empty()).then_some(secret)
    });
    kept.collect()
}
