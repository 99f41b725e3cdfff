//! What nodes write to their logs: what changes and why, and nothing while nothing does.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Daemon, Ground, WAIT_DEADLINE, holds, id_of, leader, leader_after, parted, until};

/// The lines of a node's log: JSON, since it goes to no terminal.
fn log(node: &Daemon) -> Vec<Value> {
    let text = std::fs::read_to_string(node.dir.join("log")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// What it said of its role: what, and why.
fn roles(node: &Daemon) -> Vec<(String, String)> {
    let field = |line: &Value, name: &str| line["fields"][name].as_str().unwrap_or_default().to_owned();
    let lines = log(node);
    let of_role = lines.iter().filter(|line| line["target"] == "qluster_consensus::node::cluster::role");
    of_role.map(|line| (field(line, "message"), field(line, "why"))).collect()
}

/// Waits until the last that a node said of its role is `what`, because of `why`.
async fn until_said(node: &Daemon, what: &str, why: &str) {
    until(&format!("it says `{what}` because of `{why}`"), WAIT_DEADLINE, async || {
        let said = roles(node);
        let is_last = said.last().is_some_and(|(said, reason)| said == what && reason.contains(why));
        holds(is_last, said)
    })
    .await;
}

const LEADS: &str = "this node leads";
const FOLLOWS: &str = "this node follows another";

#[tokio::test]
async fn each_change_of_role_is_a_line_with_its_reason() {
    let ground = Ground::new();
    let mut nodes = ground.three().await;
    let first = leader(&nodes.each_ref()).await;
    let (leads, follow) = parted(&nodes.each_ref(), &first);
    until_said(leads, LEADS, "elected in term").await;
    for node in follow {
        until_said(node, FOLLOWS, "elected in term").await;
    }
    nodes.iter_mut().find(|node| node.port == first.api_port.get()).unwrap().kill();
    let rest: Vec<&Daemon> = nodes.iter().filter(|node| node.port != first.api_port.get()).collect();
    let second = leader_after(&rest, &first).await;
    let (leads, follow) = parted(&rest, &second);
    let why = format!("node {} was not heard any more", first.id);
    until_said(leads, LEADS, &why).await;
    until_said(follow[0], FOLLOWS, &why).await;
    // A switchover, which nobody has to guess.
    let target = id_of(&leads.map().await, follow[0]);
    assert_eq!(leads.post(&format!("/leader?node={target}")).await.status, 200);
    until_said(follow[0], LEADS, &format!("node {} handed over", second.id)).await;
    until_said(leads, FOLLOWS, &format!("node {} handed over", second.id)).await;
    for node in rest {
        let said = roles(node);
        assert!(said.iter().all(|(_, why)| !why.is_empty()), "{said:?}");
        assert!(said.windows(2).all(|two| two[0] != two[1]), "it is said once: {said:?}");
    }
}

#[tokio::test]
async fn a_change_and_its_request_are_found_by_the_request_s_id() {
    let ground = Ground::new();
    let node = ground.bootstrap().await;
    let refused = node.delete("/node/77").await.error();
    let id = refused.request_id.unwrap();
    let lines = log(&node);
    let line = lines.iter().find(|line| line["span"]["id"] == json!(id)).unwrap_or_else(|| panic!("{id}: {lines:?}"));
    assert_eq!(line["fields"]["message"], "a change was not made");
    assert_eq!((&line["fields"]["code"], &line["fields"]["reason"]), (&json!(412), &json!(refused.message)));
    assert_eq!(line["span"]["operation"], "node_remove");

    assert_eq!(node.ask(Method::POST, "/config", Some(json!({"autoremove-minimum": 7}))).await.status, 200);
    let lines = log(&node);
    let line = lines.iter().find(|line| line["span"]["operation"] == "config_post").unwrap();
    assert_eq!(line["fields"]["message"], "a change was made");
}

#[tokio::test]
async fn nothing_is_logged_while_nothing_happens() {
    let ground = Ground::new();
    let nodes = ground.three().await;
    let first = leader(&nodes.each_ref()).await;
    let (leads, follow) = parted(&nodes.each_ref(), &first);
    for node in &follow {
        until_said(node, FOLLOWS, "").await;
    }
    let all = nodes.each_ref();
    let heartbeats = || async {
        let text = leads.get("/metrics").await.body;
        let count =
            |line: &str| line.strip_prefix("qluster_peer_request_seconds_count{request=\"append\"} ")?.parse().ok();
        text.lines().find_map(count).unwrap_or(0)
    };
    // Whatever the start has still to say is said by then.
    let beats = |count: u64| async move {
        let before: u64 = heartbeats().await;
        until(&format!("{count} heartbeats"), WAIT_DEADLINE, async || {
            // Asked again and again, as balancers do.
            for node in all {
                node.get("/primary").await;
                node.get("/map").await;
            }
            let sent = heartbeats().await - before;
            holds(sent >= count, sent)
        })
        .await;
    };
    beats(10).await;
    let before = nodes.each_ref().map(|node| log(node).len());
    // Somebody who waits for news goes away.
    let poll = leads.ask_later("/map?after-index=1000000&wait=5m".into());
    beats(10).await;
    poll.abort();
    beats(10).await;
    let news = nodes.iter().zip(before).flat_map(|(node, before)| log(node).split_off(before));
    let news: Vec<Value> = news.collect();
    // On a machine that is overloaded, somebody may lead after all who did not before.
    let happened = news.iter().any(|line| line["target"] == "qluster_consensus::node::cluster::role");
    assert!(happened || news.is_empty(), "{news:?}");
}
