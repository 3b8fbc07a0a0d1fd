//! Tests of [`super`].
use super::*;

fn board(init: Vec<Doing>, main: Vec<Doing>, policy: &str) -> Board {
    let live = |doing| Live { doing, ..Live::new("c", "i", "ContainerCreating") };
    Board {
        init: init.into_iter().map(live).collect(),
        main: main.into_iter().map(live).collect(),
        pod_ip: None,
        host_ip: "172.18.0.3".into(),
        started: now(),
        sandbox: true,
        restart_policy: policy.into(),
        conditions: Vec::new(),
    }
}

fn ended(code: i32) -> Doing {
    Doing::Ended(Ended { code, started: now(), finished: now(), message: String::new() })
}

fn running() -> Doing {
    Doing::Running { started: now() }
}

fn waiting() -> Doing {
    Doing::Waiting { reason: "ContainerCreating", message: String::new() }
}

#[test]
fn phases() {
    for (init, main, policy, expected) in [
        (vec![], vec![waiting()], "Always", "Pending"),
        (vec![running()], vec![waiting()], "Always", "Pending"),
        (vec![ended(1)], vec![waiting()], "Never", "Failed"),
        (vec![ended(0)], vec![running()], "Always", "Running"),
        (vec![], vec![ended(0), running()], "Never", "Running"),
        (vec![], vec![ended(0), ended(0)], "Never", "Succeeded"),
        (vec![], vec![ended(0), ended(3)], "Never", "Failed"),
        // A terminal phase is final for every controller: a container that will be started again may not give one.
        (vec![], vec![ended(3)], "Always", "Running"),
        (vec![], vec![ended(0)], "Always", "Running"),
        (vec![], vec![ended(0), ended(3)], "OnFailure", "Running"),
        (vec![], vec![ended(0), ended(0)], "OnFailure", "Succeeded"),
    ] {
        assert_eq!(board(init, main, policy).phase(), expected);
    }
}

#[test]
fn a_condition_keeps_its_time_until_it_changes() {
    let mut board = board(vec![], vec![running()], "Always");
    board.conditions = vec![("Ready".into(), false, "2020-01-01T00:00:00Z".into())];
    let ready = |board: &mut Board| {
        let status = board.document("u");
        let all = status["conditions"].as_array().unwrap().clone();
        all.into_iter().find(|condition| condition["type"] == "Ready").unwrap()
    };
    assert_eq!(ready(&mut board)["lastTransitionTime"], "2020-01-01T00:00:00Z");
    board.main[0].ready = true;
    assert_ne!(ready(&mut board)["lastTransitionTime"], "2020-01-01T00:00:00Z");
}

#[test]
fn a_sidecar_counts_while_it_runs_and_does_not_keep_a_pod_from_its_end() {
    let mut board = board(vec![running()], vec![waiting()], "Never");
    board.init[0].sidecar = true;
    let condition = |board: &mut Board, kind: &str| {
        let status = board.document("u");
        let all = status["conditions"].as_array().unwrap().clone();
        all.into_iter().find(|condition| condition["type"] == kind).unwrap()["status"].clone()
    };
    assert_eq!(condition(&mut board, "Initialized"), "False");
    board.init[0].started = true;
    board.main[0] = Live { doing: running(), ready: true, ..board.main[0].clone() };
    assert_eq!(condition(&mut board, "Initialized"), "True");
    assert_eq!(condition(&mut board, "Ready"), "False");
    board.init[0].ready = true;
    assert_eq!(condition(&mut board, "Ready"), "True");
    board.main[0].doing = ended(0);
    board.init[0].doing = ended(143);
    assert_eq!(board.phase(), "Succeeded");
}

#[test]
fn what_ran_before_the_node_was_started_again_is_a_restart() {
    let of = |state: Value| -> Live {
        let status =
            json!({"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 2, "state": state});
        Live::new("c", "i", "ContainerCreating").after(Some(&serde_json::from_value(status).unwrap()))
    };
    let ran = of(json!({"running": {"startedAt": "2026-01-02T03:04:05Z"}}));
    let told = ran.to_json("u");
    assert_eq!(told["restartCount"], 3);
    assert_eq!(told["lastState"]["terminated"]["exitCode"], 255);
    assert_eq!(told["lastState"]["terminated"]["startedAt"], "2026-01-02T03:04:05Z");
    let waited = of(json!({"waiting": {"reason": "ContainerCreating"}}));
    assert_eq!((waited.restarts, waited.last), (2, None));
    assert_eq!(Live::new("c", "i", "ContainerCreating").after(None).restarts, 0);
}
