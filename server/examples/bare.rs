//! What HTTP costs without a framework and without qluster: hyper alone, which answers everything with the same JSON.
//! `cargo xtask bench` holds the daemon's API against it.
//!
//! `bare ADDRESS BODY` listens at the address and answers with the body until it is killed.

use std::convert::Infallible;

use http::header::{CONTENT_TYPE, HeaderValue};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(address), Some(body)) = (args.next(), args.next()) else {
        return Err(std::io::Error::other("usage: bare ADDRESS BODY"));
    };
    let listener = TcpListener::bind(&address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let body = body.clone();
        let answer = service_fn(move |_: Request<Incoming>| {
            let mut response = Response::new(body.clone());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            async { Ok::<_, Infallible>(response) }
        });
        tokio::spawn(async move {
            if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await {
                eprintln!("{error}");
            }
        });
    }
}
