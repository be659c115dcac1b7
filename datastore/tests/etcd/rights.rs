//! Who may do what: users, roles, certificates; and what becomes of files that change.

use crate::server::Server;
use crate::suite::{next, node, pool};
use crate::{tls, told};
use etcd_client::{
    Certificate, Client, ConnectOptions, Identity, Permission, PermissionType, TlsOptions, UserAddOptions,
};
use std::collections::BTreeSet;
use std::path::Path;
use twill_crds::{IPPool, Node, Object};
use twill_datastore::{Datastore, Error, Filter, Followed, Revision, follow};

/// An etcd whose authentication is on: `root`, and `agent`, which may read all and write Nodes.
async fn guarded() -> (Server, Datastore) {
    let server = Server::start().await;
    let root = Datastore::open(&server.url()).await.unwrap();
    root.create(&node("a")).await.unwrap();
    let mut raw = server.raw().await;
    raw.user_add("root", "rootsecret", None).await.unwrap();
    raw.role_add("root").await.unwrap();
    raw.user_grant_role("root", "root").await.unwrap();
    raw.user_add("agent", "first", None).await.unwrap();
    raw.role_add("twill-agent").await.unwrap();
    let all = Permission::new(PermissionType::Read, "/twill/v1/").with_range_end("/twill/v10");
    raw.role_grant_permission("twill-agent", all).await.unwrap();
    let nodes = Permission::new(PermissionType::Readwrite, "/twill/v1/Node/").with_range_end("/twill/v1/Node0");
    raw.role_grant_permission("twill-agent", nodes).await.unwrap();
    raw.user_grant_role("agent", "twill-agent").await.unwrap();
    raw.auth_enable().await.unwrap();
    (server, root)
}

fn with_password(server: &Server, user: &str, password: &str) -> String {
    let file = server.directory.path().join(format!("{user}-password"));
    std::fs::write(&file, format!("{password}\n")).unwrap();
    format!("{}?user={user}&passwordFile={}", server.url(), file.display())
}

async fn as_root(server: &Server) -> Client {
    let options = ConnectOptions::new().with_user("root", "rootsecret");
    Client::connect([server.endpoint()], Some(options)).await.unwrap()
}

#[tokio::test]
async fn a_role_is_enough_for_what_it_grants_and_names_what_it_does_not() {
    let (server, nobody) = guarded().await;
    let agent = Datastore::open(&with_password(&server, "agent", "first")).await.unwrap();
    agent.create(&node("b")).await.unwrap();
    told(&mut follow::<Node>(&agent, Filter::default()), &mut BTreeSet::new(), &["a", "b"]).await;
    assert!(agent.list::<IPPool>(&Filter::default()).await.unwrap().items.is_empty());
    assert_eq!(agent.engine().kinds().await.unwrap(), [Node::kind()]);
    let refused = agent.create(&pool("p", "10.0.0.0/16")).await.unwrap_err();
    assert!(matches!(refused, Error::Forbidden { .. }), "{refused:?}");
    let sentence = refused.to_string();
    assert!(
        sentence.contains("user agent may not write IPPool objects (etcd: keys from /twill/v1/IPPool.twill.network/)"),
        "{sentence}"
    );
    // Who began before authentication was on.
    let refused = nobody.list::<Node>(&Filter::default()).await.unwrap_err();
    assert!(matches!(refused, Error::Forbidden { .. }), "{refused:?}");
    assert!(refused.to_string().contains("add ?user=NAME&passwordFile=FILE"), "{refused}");
    let mut watch = nobody.engine().watch(&Node::kind(), &Filter::default(), Revision(1)).await.unwrap();
    let refused = next(&mut watch).await.unwrap_err();
    assert!(matches!(refused, Error::Forbidden { .. }), "{refused:?}");
    let elsewhere = with_password(&server, "agent", "first").replace("?", "/other?");
    let refused = Datastore::open(&elsewhere).await.err().unwrap();
    assert!(matches!(refused, Error::Forbidden { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_wrong_password_is_said_and_a_new_one_in_the_file_is_taken() {
    let (server, _) = guarded().await;
    let agent = Datastore::open_existing(&with_password(&server, "agent", "wrong")).await.unwrap();
    let refused = agent.list::<Node>(&Filter::default()).await.unwrap_err();
    assert!(matches!(refused, Error::Forbidden { .. }), "{refused:?}");
    let sentence = refused.to_string();
    assert!(sentence.contains("user agent may not log in") && sentence.contains("passwordFile"), "{sentence}");
    assert!(!sentence.contains("wrong"), "{sentence}");
    with_password(&server, "agent", "first");
    let (mut followed, mut names) = (follow::<Node>(&agent, Filter::default()), BTreeSet::new());
    told(&mut followed, &mut names, &["a"]).await;
    // Changed under it: etcd throws the tokens away, the file says the new one.
    as_root(&server).await.user_change_password("agent", "second").await.unwrap();
    with_password(&server, "agent", "second");
    agent.create(&node("b")).await.unwrap();
    told(&mut followed, &mut names, &["a", "b"]).await;
}

#[tokio::test]
async fn a_server_that_has_forgotten_its_tokens_gives_new_ones() {
    let (mut server, _) = guarded().await;
    let agent = Datastore::open(&with_password(&server, "agent", "first")).await.unwrap();
    let (mut followed, mut names) = (follow::<Node>(&agent, Filter::default()), BTreeSet::new());
    told(&mut followed, &mut names, &["a"]).await;
    assert!(matches!(next(&mut followed).await, Followed::Bookmark(_)));
    server.kill();
    server.run().await;
    agent.create(&node("b")).await.unwrap();
    told(&mut followed, &mut names, &["a", "b"]).await;
    // A right that is granted later is used without a new start.
    assert!(matches!(agent.create(&pool("p", "10.0.0.0/16")).await, Err(Error::Forbidden { .. })));
    let pools = Permission::new(PermissionType::Readwrite, "/twill/v1/IPPool.twill.network/")
        .with_range_end("/twill/v1/IPPool.twill.network0");
    as_root(&server).await.role_grant_permission("twill-agent", pools).await.unwrap();
    agent.create(&pool("p", "10.0.0.0/16")).await.unwrap();
}

#[tokio::test]
async fn a_user_may_be_named_before_authentication_is_on() {
    let server = Server::start().await;
    let store = Datastore::open(&with_password(&server, "agent", "first")).await.unwrap();
    store.create(&node("a")).await.unwrap();
}

/// An etcd that takes clients of the authority `ca` alone.
async fn encrypted() -> Server {
    let mut server = Server::prepared(&[]);
    let directory = server.directory.path().to_owned();
    tls::authority(&directory, "ca");
    for name in ["server", "client"] {
        tls::certificate(&directory, "ca", name);
    }
    let file = |name: &str| directory.join(name).display().to_string();
    server.scheme = "https";
    server.add(&["--cert-file", &file("server.pem"), "--key-file", &file("server.key")]);
    server.add(&["--trusted-ca-file", &file("ca.pem"), "--client-cert-auth"]);
    server.run().await;
    server
}

fn with_files(server: &Server, ca: &str, own: &str) -> String {
    let file = |name: String| server.directory.path().join(name).display().to_string();
    let (ca, cert, key) = (file(format!("{ca}.pem")), file(format!("{own}.pem")), file(format!("{own}.key")));
    format!("{}?ca={ca}&cert={cert}&key={key}", server.url())
}

#[tokio::test]
async fn certificates_let_in_and_keep_out() {
    let server = encrypted().await;
    let store = Datastore::open(&with_files(&server, "ca", "client")).await.unwrap();
    store.create(&node("a")).await.unwrap();
    told(&mut follow::<Node>(&store, Filter::default()), &mut BTreeSet::new(), &["a"]).await;
    let directory = server.directory.path();
    tls::authority(directory, "stranger");
    tls::certificate(directory, "stranger", "strange");
    for url in [
        with_files(&server, "stranger", "client"),
        with_files(&server, "ca", "strange"),
        format!("{}?ca={}", server.url(), directory.join("ca.pem").display()),
        server.url().replace("https", "http"),
    ] {
        let kept_out = Datastore::open_existing(&url).await.unwrap();
        let error = kept_out.list::<Node>(&Filter::default()).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{url}: {error:?}");
        assert!(error.to_string().contains(&format!("://127.0.0.1:{}: ", server.port)), "{error}");
    }
}

#[tokio::test]
async fn a_certificate_s_name_is_a_user() {
    let server = encrypted().await;
    let directory = server.directory.path();
    tls::certificate(directory, "ca", "root");
    let root = Datastore::open(&with_files(&server, "ca", "root")).await.unwrap();
    root.create(&node("a")).await.unwrap();
    let read = |name: &str| std::fs::read(directory.join(name)).unwrap();
    let certificates = TlsOptions::new()
        .ca_certificate(Certificate::from_pem(read("ca.pem")))
        .identity(Identity::from_pem(read("root.pem"), read("root.key")));
    let options = ConnectOptions::new().with_tls(certificates);
    let mut raw = Client::connect([server.endpoint()], Some(options)).await.unwrap();
    for user in ["root", "client"] {
        raw.user_add(user, "", Some(UserAddOptions::new().with_no_pwd())).await.unwrap();
    }
    raw.role_add("root").await.unwrap();
    raw.user_grant_role("root", "root").await.unwrap();
    raw.role_add("reader").await.unwrap();
    let all = Permission::new(PermissionType::Read, "/twill/v1/").with_range_end("/twill/v10");
    raw.role_grant_permission("reader", all).await.unwrap();
    raw.user_grant_role("client", "reader").await.unwrap();
    raw.auth_enable().await.unwrap();
    root.create(&node("b")).await.unwrap();
    let reader = Datastore::open(&with_files(&server, "ca", "client")).await.unwrap();
    told(&mut follow::<Node>(&reader, Filter::default()), &mut BTreeSet::new(), &["a", "b"]).await;
    let refused = reader.create(&node("c")).await.unwrap_err();
    assert!(matches!(&refused, Error::Forbidden { who, .. } if who.contains("client.pem")), "{refused:?}");
}

#[tokio::test]
async fn certificates_are_read_again_for_each_connection() {
    let mut server = encrypted().await;
    let directory = server.directory.path().to_owned();
    let store = Datastore::open(&with_files(&server, "ca", "client")).await.unwrap();
    store.create(&node("a")).await.unwrap();
    let (mut followed, mut names) = (follow::<Node>(&store, Filter::default()), BTreeSet::new());
    told(&mut followed, &mut names, &["a"]).await;
    server.kill();
    tls::authority(&directory, "ca");
    for name in ["server", "client"] {
        tls::certificate(&directory, "ca", name);
    }
    server.run().await;
    store.create(&node("b")).await.unwrap();
    told(&mut followed, &mut names, &["a", "b"]).await;
}

#[tokio::test]
async fn a_bad_address_or_file_is_one_sentence_at_once_with_the_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (empty, text) = (file("empty", "\n"), file("text", "this is no certificate"));
    let broken = file("broken", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n");
    tls::authority(directory.path(), "ca");
    let ca = directory.path().join("ca.pem").display().to_string();
    let other = directory.path().join("none").display().to_string();
    let cases = [
        ("etcd:".to_owned(), "write etcd:http://HOST:2379"),
        ("etcd:http://root:secret@h:1".to_owned(), "?user=NAME&passwordFile=FILE"),
        (format!("etcd:http://h:1?user=u&passwordFile={other}"), "passwordFile"),
        (format!("etcd:http://h:1?user=u&passwordFile={empty}"), "is empty; write the password of user u into it"),
        (format!("etcd:https://h:1?ca={other}"), "cannot be read"),
        (format!("etcd:https://h:1?ca={text}"), "holds no certificate in PEM form"),
        (format!("etcd:https://h:1?ca={broken}"), "certificates that cannot be used"),
        (format!("etcd:https://h:1?ca={ca}&cert={ca}&key={ca}"), "holds no private key in PEM form"),
    ];
    for (url, expected) in cases {
        let error = Datastore::open_existing(&url).await.err().unwrap();
        assert!(matches!(error, Error::Open { .. }), "{url}: {error:?}");
        let sentence = error.to_string();
        assert!(sentence.contains(expected) && !sentence.contains("secret"), "{url}: {sentence}");
    }
    assert!(Path::new(&ca).exists());
}
