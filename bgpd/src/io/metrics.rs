//! Answers Prometheus.

use super::SpeakerHandle;
use crate::metrics::page;
use crate::probe::Report;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use std::io;
use std::net::{SocketAddr, TcpListener};
use tokio::sync::watch;

/// What [`page`] is written in.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A socket on which nobody answers yet.
pub(crate) struct Metrics(TcpListener);

impl Metrics {
    /// Listens.
    ///
    /// # Errors
    /// The address is not ours, or the port is taken.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }
}

/// Answers for ever.
pub(super) async fn serve(metrics: Option<Metrics>, speaker: SpeakerHandle, probed: Option<watch::Receiver<Report>>) {
    let Some(Metrics(listener)) = metrics else { return std::future::pending().await };
    let answer = move || async move {
        let (peers, problems) = speaker.peers().await;
        let fib = speaker.fib().map(|_| speaker.fib_status().borrow().clone());
        let probed = probed.map(|probed| probed.borrow().clone());
        ([(CONTENT_TYPE, OPEN_METRICS)], page(&peers, fib.as_ref(), problems.len(), probed.as_ref()))
    };
    let router = Router::new().route("/metrics", get(answer));
    let served = async { axum::serve(tokio::net::TcpListener::from_std(listener)?, router).await };
    if let Err(error) = served.await {
        tracing::error!("nobody answers Prometheus any more: {error}");
    }
    std::future::pending().await
}
