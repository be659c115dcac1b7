//! What is ours alone to decide, against a server that says what the case needs: it answers one request after another, each on a
//! connection of its own, from a list.

use crate::suite::{next, node};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use twill_crds::{Node, Object};
use twill_datastore::{Datastore, Error, Filter, Key, Preconditions, RawEvent, Revision, Scope};

/// Head and body of an answer.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

/// Serves the answers, and gives back the requests: line, headers and body of each.
pub(crate) async fn serve<A: Into<Vec<u8>> + Send + 'static>(answers: Vec<A>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let mut requests = Vec::new();
        for answer in answers {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let (mut request, mut length) = (String::new(), 0);
            while !request.ends_with("\r\n\r\n") {
                let begin = request.len();
                stream.read_line(&mut request).await.unwrap();
                if let Some(value) = request[begin..].to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.unwrap();
            stream.get_mut().write_all(&answer.into()).await.unwrap();
            requests.push(request + &String::from_utf8(body).unwrap());
        }
        requests
    });
    (url, serving)
}

fn kubeconfig(directory: &Path, url: &str, token: &str) -> String {
    let file = directory.join("config");
    let config = json!({
        "clusters": [{"name": "c", "cluster": {"server": url}}], "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    });
    std::fs::write(&file, config.to_string()).unwrap();
    format!("kubernetes:{}?context=x", file.display())
}

pub(crate) async fn store(directory: &Path, url: &str) -> Datastore {
    Datastore::open_existing_as(&kubeconfig(directory, url, "old"), "felix").await.unwrap()
}

const NODE: &str = r#"{"metadata":{"name":"n1","uid":"u","resourceVersion":"7"}}"#;

#[tokio::test]
async fn a_busy_server_is_asked_again_when_it_says_and_knows_who_asks() {
    let directory = tempfile::tempdir().unwrap();
    let busy = |seconds: &str| answer("429 Too Many Requests", &format!("Retry-After: {seconds}\r\n"), "");
    let (url, serving) = serve(vec![busy("1"), answer("201 Created", "", NODE), busy("60")]).await;
    let store = store(directory.path(), &url).await;
    let began = Instant::now();
    store.create(&node("n1")).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    let error = store.create(&node("n2")).await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable(text) if text.contains("come again in 60 s")), "{error}");
    let requests = serving.await.unwrap();
    assert!(requests[1].starts_with("POST /api/v1/nodes HTTP/1.1"), "{}", requests[1]);
    let agent = format!("user-agent: twill-felix/{}\r\n", env!("CARGO_PKG_VERSION"));
    assert!(requests[1].contains(&agent) && requests[1].contains("authorization: Bearer old\r\n"), "{}", requests[1]);
}

#[tokio::test]
async fn credentials_are_read_again_when_the_server_refuses_them() {
    let directory = tempfile::tempdir().unwrap();
    let no = || answer("401 Unauthorized", "", "");
    let (url, serving) = serve(vec![no(), answer("200 OK", "", NODE)]).await;
    let store = store(directory.path(), &url).await;
    // Sooner than the file is looked at again.
    kubeconfig(directory.path(), &url, "new");
    let got = store.get::<Node>(&Key::cluster("n1")).await.unwrap().unwrap();
    assert_eq!(got.name(), "n1");
    let requests = serving.await.unwrap();
    assert!(requests[1].contains("authorization: Bearer new\r\n"), "{}", requests[1]);
}

#[tokio::test]
async fn preconditions_and_the_time_to_end_are_sent() {
    let directory = tempfile::tempdir().unwrap();
    let (url, serving) = serve(vec![answer("200 OK", "", "{}"), answer("200 OK", "", "{}")]).await;
    let store = store(directory.path(), &url).await;
    let preconditions = Preconditions { uid: Some("u".into()), revision: Some(Revision(7)) };
    store.delete::<Node>(&Key::cluster("n1"), &preconditions).await.unwrap();
    store.engine().delete_ended(&Node::kind(), &Key::cluster("n1"), &Preconditions::default()).await.unwrap();
    let requests = serving.await.unwrap();
    let body = |request: &str| -> serde_json::Value {
        serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    let sent = body(&requests[0]);
    assert_eq!(sent["preconditions"], json!({"uid": "u", "resourceVersion": "7"}));
    assert_eq!((&sent["propagationPolicy"], sent.get("gracePeriodSeconds")), (&json!("Background"), None));
    assert_eq!(body(&requests[1])["gracePeriodSeconds"], 0);
}

#[tokio::test]
async fn a_list_whose_history_was_forgotten_between_two_pages_is_begun_again() {
    let directory = tempfile::tempdir().unwrap();
    let page = |name: &str, next: &str| {
        let metadata = json!({"resourceVersion": "9", "continue": next});
        answer("200 OK", "", &json!({"metadata": metadata, "items": [{"metadata": {"name": name}}]}).to_string())
    };
    let gone = answer("410 Gone", "", r#"{"reason":"Expired","code":410}"#);
    let (url, serving) = serve(vec![page("a", "x/y"), gone, page("a", "z"), page("b", "")]).await;
    let list = store(directory.path(), &url).await.list::<Node>(&Filter::default()).await.unwrap();
    assert_eq!(list.items.iter().map(Object::name).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(list.revision, Revision(9));
    let requests = serving.await.unwrap();
    let lines: Vec<&str> = requests.iter().map(|request| request.split(' ').nth(1).unwrap()).collect();
    let first = "/api/v1/nodes?limit=500";
    assert_eq!(lines, [first, &format!("{first}&continue=x%2Fy"), first, &format!("{first}&continue=z")]);
}

/// The events of a watch from revision 5 that is answered so.
async fn watched(answers: Vec<String>) -> (Vec<String>, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let (url, serving) = serve(answers).await;
    let store = store(directory.path(), &url).await;
    let mut watch = store.engine().watch(&Node::kind(), &Filter::default(), Revision(5)).await.unwrap();
    let mut told = Vec::new();
    loop {
        match next(&mut watch).await {
            Ok(RawEvent::Applied(object, at)) => told.push(format!("applied {} {}", object["metadata"]["name"], at.0)),
            Ok(RawEvent::Deleted(object, at)) => told.push(format!("deleted {} {}", object["metadata"]["name"], at.0)),
            Ok(RawEvent::Bookmark(at)) => told.push(format!("all {}", at.0)),
            Err(error) => {
                told.push(error.to_string());
                return (told, serving.await.unwrap());
            }
        }
    }
}

fn event(step: &str, name: &str, revision: u64) -> String {
    let object = json!({"metadata": {"name": name, "resourceVersion": revision.to_string()}});
    json!({"type": step, "object": object}).to_string() + "\n"
}

#[tokio::test]
async fn a_watch_that_the_server_ends_goes_on_from_where_it_was_and_nonsense_stalls_it_not() {
    let first = event("ADDED", "a", 6) + "{ no json\n" + &event("MODIFIED", "a", 7);
    let second = event("DELETED", "a", 8) + &event("BOOKMARK", "", 12);
    let gone = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}"#.to_owned() + "\n";
    let answers = [first, second, gone].map(|body| answer("200 OK", "", &body));
    let (told, requests) = watched(answers.to_vec()).await;
    let expired = Error::Expired.to_string();
    let expected = ["all 5", "applied \"a\" 6", "applied \"a\" 7", "all 7", "deleted \"a\" 8", "all 12", &expired];
    assert_eq!(told, expected);
    for (request, from) in requests.iter().zip(["5", "7", "12"]) {
        let line = request.split(' ').nth(1).unwrap();
        let expected = format!("/api/v1/nodes?watch=1&allowWatchBookmarks=true&resourceVersion={from}&timeoutSeconds=");
        assert!(line.starts_with(&expected), "{line}");
        let seconds: u64 = line.rsplit_once('=').unwrap().1.parse().unwrap();
        assert!((300..=600).contains(&seconds), "{line}");
        assert!(request.contains("accept-encoding: identity\r\n"), "{request}");
    }
}

#[tokio::test]
async fn no_barrier_is_reached_by_what_was_told_before_the_storage_was_put_back() {
    let directory = tempfile::tempdir().unwrap();
    let list = || answer("200 OK", "", r#"{"metadata":{"resourceVersion":"7"},"items":[]}"#);
    let told = answer("200 OK", "", &event("BOOKMARK", "", 9));
    let (url, serving) = serve(vec![told, list(), list(), list()]).await;
    let store = store(directory.path(), &url).await;
    let mut watch = store.engine().watch(&Node::kind(), &Filter::default(), Revision(5)).await.unwrap();
    assert!(matches!(next(&mut watch).await, Ok(RawEvent::Bookmark(Revision(5)))));
    assert!(matches!(next(&mut watch).await, Ok(RawEvent::Bookmark(Revision(9)))));
    let all = [Scope::all::<Node>()];
    let error = store.barrier(&all).await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable(text) if text.contains("put back to an older state")), "{error}");
    store.list::<Node>(&Filter::default()).await.unwrap();
    store.barrier(&all).await.unwrap();
    serving.await.unwrap();
}

#[tokio::test]
async fn a_server_that_has_another_past_is_listed_again_and_one_that_ends_watches_at_once_is_away() {
    let (told, _) = watched(vec![answer("200 OK", "", &event("BOOKMARK", "", 3))]).await;
    assert_eq!(told, ["all 5", &Error::Expired.to_string()]);
    let (told, _) = watched(vec![answer("200 OK", "", "")]).await;
    assert!(told[0] == "all 5" && told[1].contains("ends a watch of Node at once"), "{told:?}");
    let (told, _) = watched(vec![answer("410 Gone", "", r#"{"reason":"Expired","code":410}"#)]).await;
    assert_eq!(told, [Error::Expired.to_string()]);
}
