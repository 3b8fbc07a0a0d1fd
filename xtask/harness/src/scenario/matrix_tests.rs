//! Tests of [`super`]: every check catches a planted fault.
use super::*;
use crate::cluster::Place;
use serde_json::json;

fn backends() -> Vec<Backend> {
    let backend = |pod: &str, address: &str, cookie| Backend {
        pod: pod.into(),
        address: address.into(),
        node: "n".into(),
        cookie,
    };
    vec![backend("a", "10.244.1.1", 7), backend("b", "10.244.2.1", 8)]
}

fn cell(expect: Expect) -> Cell {
    Cell {
        name: "control-plane -> NodePort of worker1".into(),
        client: cell::Client { address: Some("172.18.0.9".into()), ..cell::Client::default() },
        from: "n".into(),
        place: Place::Node("n".into()),
        to: "NodePort".into(),
        url: "http://x/".into(),
        path: ("n".into(), "from-netdev", &["service-new"]),
        expect,
    }
}

fn answer(pod: &str, address: &str, cookie: u64) -> Value {
    json!({"outcome": "ok", "body": format!("PodName: {pod} | PodIP: eth0 {address}/32\n"), "whoami": {"netns_cookie": cookie, "peer_address": "172.18.0.9"}})
}

fn counters(value: u64) -> Counters {
    Counters::from([("from-netdev".into(), [("service-new".to_owned(), value)].into())])
}

#[track_caller]
fn check(answers: &[Value], expected: &str) {
    let verdict = judge(&cell(Expect::Answers), &backends(), answers.len() as u32, answers);
    let text = verdict.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(if expected.is_empty() { text.is_empty() } else { text.contains(expected) }, "{text:?}");
}

#[test]
fn true_answers_pass() {
    check(&[answer("a", "10.244.1.1", 7), answer("b", "10.244.2.1", 8)], "");
    let datagram = json!({"outcome": "ok", "whoami": {"pod": "b", "address": "10.244.2.1", "netns_cookie": 8, "peer_address": "172.18.0.9"}});
    check(&[answer("a", "10.244.1.1", 7), datagram], "");
}

#[test]
fn only_absence_may_be_waited_out() {
    let good = answer("a", "10.244.1.1", 7);
    let absent = |answers: &[Value]| {
        judge(&cell(Expect::Answers), &backends(), answers.len() as u32, answers).unwrap_err().is::<Absent>()
    };
    let silent = json!({"outcome": "timeout"});
    assert!(absent(&[good.clone(), silent.clone()]) && absent(&[json!({"outcome": "refused"})]));
    assert!(absent(&[good.clone(), good.clone()]), "b has not answered yet");
    // A wrong answer stays one, whatever else is missing.
    assert!(!absent(&[silent, answer("c", "10.244.2.1", 8)]));
    assert!(!absent(&[good, json!({"outcome": "reset"})]));
}

#[test]
fn planted_faults_are_caught() {
    let good = answer("a", "10.244.1.1", 7);
    check(&[good.clone(), answer("c", "10.244.2.1", 8)], "no backend of the service");
    check(&[good.clone(), answer("b", "10.244.9.9", 8)], "the API server says");
    check(&[good.clone(), answer("b", "10.244.2.1", 99)], "another network namespace");
    check(&[good.clone(), good.clone()], "none was answered by b");
    let mut stranger = answer("b", "10.244.2.1", 8);
    stranger["whoami"]["peer_address"] = json!("10.244.2.1");
    check(&[good.clone(), stranger], "expected 172.18.0.9");
    check(&[good.clone(), json!({"outcome": "refused"})], "expected an answer");
    check(&[good, json!({"outcome": "ok", "body": "a decoy"})], "not the workload's");
}

#[test]
fn a_counter_must_move_by_what_all_cells_sent_that_share_it() {
    let astray = |cells: &[Cell], moved: u64| {
        let at = |value| BTreeMap::from([("n".to_owned(), counters(value))]);
        astray(cells, 2, &at(5), &at(5 + moved)).into_values().collect::<Vec<_>>().join("")
    };
    let both = [cell(Expect::Answers), cell(Expect::Answers)];
    assert_eq!(astray(&both, 4), "");
    assert!(astray(&both, 3).contains("moved by 3, expected 4"));
    assert_eq!(astray(&[cell(Expect::Silence)], 1), "");
    assert!(astray(&[cell(Expect::Silence)], 0).contains("moved by 0, expected 1"));
    assert_eq!(astray(&[cell(Expect::Refusal)], 0), "");
    let either = Cell { path: ("n".into(), "from-netdev", &["forward", "service-new"]), ..cell(Expect::Answers) };
    assert_eq!(astray(std::slice::from_ref(&either), 2), "");
    assert!(astray(&[either], 1).contains("from-netdev/forward+service-new of n moved by 1, expected 2"));
    let elsewhere = Cell { path: ("other".into(), "from-netdev", &["service-new"]), ..cell(Expect::Answers) };
    assert!(astray(&[elsewhere], 9).contains("of other moved by 0"));
}

#[test]
fn silence_must_be_silence() {
    let judge = |answers: &[Value]| judge(&cell(Expect::Silence), &backends(), 1, answers);
    assert!(judge(&[json!({"outcome": "timeout"})]).is_ok());
    assert!(judge(&[json!({"outcome": "refused"})]).is_err());
}

#[test]
fn whoever_answers_at_a_nodes_own_address_is_found() {
    let judge = |answers: &[Value]| judge(&cell(Expect::Refusal), &backends(), 1, answers).map_err(|e| e.to_string());
    assert!(judge(&[json!({"outcome": "refused"})]).is_ok());
    assert!(judge(&[answer("a", "10.244.1.1", 7)]).unwrap_err().contains("expected a refusal"));
    assert!(judge(&[json!({"outcome": "timeout"})]).is_err());
}

#[test]
fn the_number_of_requests_follows_from_the_false_alarm_rate() {
    assert_eq!(requests(2, 1e-6), 21);
    assert_eq!(requests(1, 1e-6), 1);
    assert!(requests(3, 1e-6) > 30);
}

#[test]
fn a_node_that_lacks_frontends_is_waited_for() {
    let counts = |list: &[u64]| list.iter().enumerate().map(|(at, count)| (format!("n{at}"), *count)).collect();
    assert!(all_equal(&counts(&[7, 7, 7])));
    assert!(!all_equal(&counts(&[7, 7, 5])));
    assert!(!all_equal(&counts(&[])), "nobody was asked");
}
