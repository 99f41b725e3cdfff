//! The set of statements that do not write, against a node that is a small server on a real socket.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use qluster_client::{ClusterClient, ReadonlySet};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{WAIT_DEADLINE, holds, until};

/// What the node tells: a tag and hashes.
type List = Arc<Mutex<(String, Vec<String>)>>;

/// Answers as a node does, but never makes anybody wait for long.
async fn serve(stream: TcpStream, port: u16, list: List) {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut path, mut known) = (String::new(), String::new());
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            match line.trim_end() {
                "" => break,
                line if path.is_empty() => path = line.split(' ').nth(1).unwrap().to_owned(),
                line => match line.split_once(": ") {
                    Some((name, value)) if name.eq_ignore_ascii_case("if-none-match") => known = value.to_owned(),
                    _ => {}
                },
            }
        }
        let (tag, hashes) = list.lock().unwrap().clone();
        let (status, body) = if path.starts_with("/leader") {
            ("200 OK", format!("{{\"id\":1,\"term\":1,\"ip\":\"127.0.0.1\",\"api-port\":{port},\"db-port\":5432}}"))
        } else if known == tag {
            tokio::time::sleep(Duration::from_millis(20)).await;
            ("304 Not Modified", String::new())
        } else {
            let hashes = serde_json::to_string(&hashes).unwrap();
            let about =
                "\"algorithm\":\"pg_query-fingerprint\",\"version\":\"3.18\",\"postgresql\":15,\"generation\":1";
            ("200 OK", format!("[{{\"database\":\"app\",{about},\"hashes\":{hashes}}}]"))
        };
        let head = format!("HTTP/1.1 {status}\r\netag: {tag}\r\ncontent-type: application/json");
        let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

#[tokio::test]
async fn a_set_has_what_the_leader_lists_until_that_is_withdrawn() {
    let sql = "SELECT name FROM users WHERE id = 7";
    let hash = ReadonlySet::hash("select name from users u where id = $1").unwrap();
    let list: List = Arc::new(Mutex::new(("\"c-1\"".into(), vec![hash.to_string()])));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let told = list.clone();
    let node = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(serve(stream, port, told.clone()));
        }
    });
    let cluster = ClusterClient::new([format!("http://127.0.0.1:{port}")]).unwrap();
    let readonly = ReadonlySet::watch(&cluster);
    assert!(!readonly.contains("app", sql));
    readonly.ready().await;
    assert!(readonly.contains("app", sql));
    assert!(!readonly.contains("other", sql));
    assert!(!readonly.contains("app", "SELECT name FROM users_of_yesterday WHERE id = 7"));
    assert!(!readonly.contains("app", "no SQL"));

    *list.lock().unwrap() = ("\"c-2\"".into(), Vec::new());
    until("it is withdrawn", WAIT_DEADLINE, async || holds(!readonly.contains("app", sql), "it is there")).await;
    *list.lock().unwrap() = ("\"c-3\"".into(), vec![hash.to_string()]);
    until("it is there again", WAIT_DEADLINE, async || holds(readonly.contains("app", sql), "it is not there")).await;
    node.abort();
}
