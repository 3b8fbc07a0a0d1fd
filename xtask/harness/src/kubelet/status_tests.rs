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
    Doing::Ended(Ended { code, started: now(), finished: now() })
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
