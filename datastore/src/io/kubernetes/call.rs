//! One request and its answer: deadlines, patience with a server that is busy, credentials that were replaced.

use super::access::Access;
use super::address::chain;
use super::status::{Asked, Status};
use crate::Error;
use crate::io::follow::rand_unit;
use crate::io::unreachable::unreachable;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, WARNING};
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde::de::DeserializeOwned;
use std::io::Read;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// How long an answer, or the next part of one, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a refusal's text may be long.
const REFUSAL: usize = 1 << 20;

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) asked: Asked,
    pub(super) method: Method,
    /// With its query.
    pub(super) path: String,
    pub(super) body: Vec<u8>,
    pub(super) accept: &'static str,
    /// Whether the answer may come compressed. Lists are a tenth then, and cost the server less; a watch's events must not wait.
    pub(super) compressed: bool,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server refuses.
    Refused(Status),
    /// It answers in protobuf that is not understood.
    Unreadable(String),
    /// There is none.
    Failed(Error),
}

impl Failure {
    pub(super) fn error(self, asked: &Asked) -> Error {
        match self {
            Self::Refused(status) => status.error(asked),
            Self::Unreadable(why) => {
                Error::Unavailable(format!("the API server's answer to {} is no protobuf: {why}", asked.action()))
            }
            Self::Failed(error) => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Request {
    /// Reads.
    pub(super) fn get(asked: Asked, path: String) -> Self {
        let (method, body, accept) = (Method::GET, Vec::new(), "application/json");
        Self { asked, method, path, body, accept, compressed: true }
    }

    /// Writes.
    pub(super) fn write(asked: Asked, method: Method, path: String, body: &serde_json::Value) -> Self {
        Self { method, body: body.to_string().into_bytes(), ..Self::get(asked, path) }
    }

    fn http(&self) -> Result<http::Request<Body>, Error> {
        let encoding = if self.compressed { "gzip" } else { "identity" };
        let mut request = http::Request::builder().method(self.method.clone()).uri(&self.path);
        request = request.header(ACCEPT, self.accept).header(ACCEPT_ENCODING, encoding);
        if !self.body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let unasked = |e: http::Error| Error::Unavailable(format!("{} cannot be asked: {e}", self.asked.action()));
        request.body(Body::from(self.body.clone())).map_err(unasked)
    }
}

impl Access {
    /// The whole answer, decoded.
    pub(super) async fn call<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Failure> {
        let response = self.send(request).await?;
        Ok(decoded(&request.asked, &whole(response, usize::MAX).await?)?)
    }

    /// An answer that is a success, of which nothing but the head has come.
    pub(super) async fn send(&self, request: &Request) -> Result<Response<Body>, Failure> {
        let deadline = Instant::now() + PATIENCE;
        let mut once = Once::default();
        loop {
            let client = self.client().await?;
            let answer = timeout_at(deadline, client.client.send(request.http()?)).await;
            let response = match answer {
                Ok(Ok(response)) => response,
                // A connection that had died unnoticed; whoever only reads may ask again.
                Ok(Err(_)) if request.method == Method::GET && once.connection() => continue,
                Ok(Err(error)) => return Err(Error::Unavailable(unreachable(&client.server, &chain(&error))).into()),
                Err(_) => return Err(silent(PATIENCE).into()),
            };
            match response.status() {
                status if status.is_success() => {
                    warn_of(&response, &request.asked);
                    return Ok(response);
                }
                StatusCode::UNAUTHORIZED if once.credentials() && self.refused(client.generation).await => {}
                StatusCode::UNAUTHORIZED => {
                    let source = self.source().await;
                    return Err(Error::Unavailable(format!(
                        "the API server does not accept our credentials (401); renew those in {source}"
                    ))
                    .into());
                }
                StatusCode::TOO_MANY_REQUESTS => wait(seconds_of(&response), deadline).await?,
                status => {
                    let body = whole(response, REFUSAL).await.unwrap_or_default();
                    if body.starts_with(b"Client sent an HTTP request to an HTTPS server") {
                        let problem = format!("{} speaks TLS; write https:// before it", client.server);
                        return Err(Error::Unavailable(problem).into());
                    }
                    return Err(Failure::Refused(Status::read(status.as_u16(), &body)));
                }
            }
        }
    }
}

/// An answer in JSON.
pub(super) fn decoded<T: DeserializeOwned>(asked: &Asked, bytes: &[u8]) -> Result<T, Error> {
    let no_json = |e| Error::Unavailable(format!("the API server's answer to {} is no JSON: {e}", asked.action()));
    serde_json::from_slice(bytes).map_err(no_json)
}

/// What is tried a second time, but not a third.
#[derive(Default)]
struct Once {
    connection: bool,
    credentials: bool,
}

impl Once {
    fn connection(&mut self) -> bool {
        !std::mem::replace(&mut self.connection, true)
    }

    fn credentials(&mut self) -> bool {
        !std::mem::replace(&mut self.credentials, true)
    }
}

/// As long as a busy server asks us to, and a little longer, so that not all come back at once.
async fn wait(seconds: u64, deadline: Instant) -> Result<(), Error> {
    let until = Instant::now() + Duration::from_secs(seconds) + Duration::from_millis(500).mul_f64(rand_unit());
    if until >= deadline {
        return Err(Error::Unavailable(format!("the API server is busy (429), and asks to come again in {seconds} s")));
    }
    sleep_until(until).await;
    Ok(())
}

/// After how many seconds to come again.
fn seconds_of(response: &Response<Body>) -> u64 {
    response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(1)
}

/// What a server has to say beside an answer: fields that it dropped, versions that will go.
fn warn_of(response: &Response<Body>, asked: &Asked) {
    for warning in response.headers().get_all(WARNING).iter().filter_map(|value| value.to_str().ok()) {
        tracing::warn!(action = %asked.action(), warning, "the API server warns");
    }
}

/// The whole body, uncompressed.
pub(super) async fn whole(response: Response<Body>, limit: usize) -> Result<Vec<u8>, Error> {
    let packed = response.headers().get(CONTENT_ENCODING).is_some_and(|encoding| encoding == "gzip");
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(part) = part(&mut body, PATIENCE).await? {
        bytes.extend_from_slice(&part);
        if bytes.len() > limit {
            return Err(Error::Unavailable(format!("the API server's answer is longer than {limit} bytes")));
        }
    }
    if !packed {
        return Ok(bytes);
    }
    let mut unpacked = Vec::with_capacity(bytes.len() * 8);
    let broken = |e| Error::Unavailable(format!("the API server's answer cannot be unpacked: {e}"));
    flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut unpacked).map_err(broken)?;
    Ok(unpacked)
}

/// The next bytes of a body; none at its end.
pub(super) async fn part(
    body: &mut Body,
    patience: Duration,
) -> Result<Option<impl AsRef<[u8]> + std::ops::Deref<Target = [u8]> + use<>>, Error> {
    loop {
        match timeout(patience, body.frame()).await {
            Err(_) => return Err(silent(patience)),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => return Err(Error::Unavailable(chain(&error))),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

fn silent(patience: Duration) -> Error {
    Error::Unavailable(format!("the API server has said nothing for {} s", patience.as_secs()))
}
