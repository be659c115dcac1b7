//! Who we are to the server, and what it lets us do.

use crate::api::Api;
use crate::suite::{next, pod};
use serde_json::json;
use std::time::Duration;
use twill_crds::{IPPool, Pod};
use twill_datastore::{Datastore, Error, Filter, Revision};

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn a_missing_right_is_named_and_credentials_that_were_replaced_are_read() {
    let api = Api::with_definitions();
    let poor = api.server.kubeconfig_of("system:serviceaccount:twill:felix", &["system:authenticated"]).unwrap();
    let mine = api.server.directory().join("mine.kubeconfig");
    std::fs::copy(&poor, &mine).unwrap();
    let store = Datastore::open_existing_as(&format!("kubernetes:{}", mine.display()), "felix").await.unwrap();
    let error = store.list::<IPPool>(&Filter::default()).await.unwrap_err();
    assert!(matches!(error, Error::Forbidden { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "system:serviceaccount:twill:felix may not list ippools.twill.network; grant it that right"
    );
    let error = store.create(&pod("p", "a")).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "system:serviceaccount:twill:felix may not create pods in namespace default; grant it that right"
    );
    let from = Revision(1);
    let mut watch =
        store.watch::<Pod>(&Filter { namespace: Some("shop".into()), ..Filter::default() }, from).await.unwrap();
    let error = next(&mut watch).await.unwrap_err().to_string();
    assert!(error.contains("may not watch pods in namespace shop"), "{error}");
    assert!(store.engine().kinds().await.unwrap().is_empty(), "what may not be listed is left out");
    std::fs::copy(api.server.kubeconfig(), &mine).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    store.list::<IPPool>(&Filter::default()).await.unwrap();
    // Somebody whom the server does not know.
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "c", "cluster": {"server": api.server.url(), "insecure-skip-tls-verify": true}}],
        "users": [{"name": "u", "user": {"token": "wrong"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    });
    std::fs::write(&mine, config.to_string()).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let error = store.list::<IPPool>(&Filter::default()).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Unavailable(_)) && text.contains("(401); renew those in kubeconfig"), "{text}");
    // A server that shows a certificate of somebody else's.
    let config = config.to_string().replace("\"insecure-skip-tls-verify\":true", "\"tls-server-name\":\"localhost\"");
    std::fs::write(&mine, config).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let error = store.list::<IPPool>(&Filter::default()).await.unwrap_err().to_string();
    let server = api.server.url();
    assert!(error.contains(&format!("{server}: its certificate is of another authority")), "{error}");
}
