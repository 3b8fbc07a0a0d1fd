//! Client certificates over real TLS, as kube-apiserver judges them: a bad one is a 401, not a broken connection; none is
//! nobody; a token beside a bad one counts.

#![allow(clippy::unwrap_used, reason = "test code")]

mod process;

use process::client::Client;
use process::pki::{Authority, Issued, Valid};
use process::{Installation, Process, Scratch, bytes};
use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// Who the server takes the client for: name and groups; or the code and message of the refusal.
async fn who(client: &Client) -> Result<(String, Vec<String>), (u16, String)> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let (code, answer) = client.ask("POST", WHO, Some(&review)).await.unwrap();
    if code != 201 {
        return Err((code, answer["message"].as_str().unwrap_or_default().to_owned()));
    }
    let user = &answer["status"]["userInfo"];
    let groups = user["groups"].as_array().unwrap().iter().map(|group| group.as_str().unwrap().to_owned());
    Ok((user["username"].as_str().unwrap().to_owned(), groups.collect()))
}

fn unauthorized() -> Result<(String, Vec<String>), (u16, String)> {
    Err((401, "Unauthorized".to_owned()))
}

fn running(what: &str) -> (Installation, Process) {
    let installation = Installation::new(what);
    let process = installation.start(&[]);
    (installation, process)
}

/// A token of a new service account.
async fn account_token(admin: &Client) -> String {
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    assert_eq!(admin.ask("POST", accounts, Some(&account)).await.unwrap().0, 201);
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let (code, answer) = admin.ask("POST", &format!("{accounts}/robot/token"), Some(&request)).await.unwrap();
    assert_eq!(code, 201, "{answer}");
    answer["status"]["token"].as_str().unwrap().to_owned()
}

/// Every certificate that must not count, by what is wrong with it.
fn bad_ones(authority: &Authority) -> Vec<(&'static str, Issued)> {
    let named = |authority: &Authority| authority.client("admin", "system:masters");
    let valid = |valid| authority.client_with("admin", "system:masters", &[ClientAuth], valid);
    vec![
        ("of another authority", named(&Authority::new("elsewhere"))),
        ("of an authority with the same name and another key", named(&Authority::new("cluster"))),
        ("expired", valid(Valid::Past)),
        ("not yet valid", valid(Valid::Future)),
        ("for servers only", authority.client_with("admin", "system:masters", &[ServerAuth], Valid::Now)),
    ]
}

#[tokio::test]
async fn a_good_certificate_says_who_asks() {
    let (installation, process) = running("certificates-good");
    let named = |name: &str, group: &str| installation.authority.client(name, group);
    let who_is = async |issued: Issued| who(&installation.client(&process, Some(&issued))).await.unwrap();
    let authenticated = "system:authenticated".to_owned();
    let admin = who_is(named("admin", "system:masters")).await;
    assert_eq!(admin, ("admin".into(), vec!["system:masters".into(), authenticated.clone()]));
    assert_eq!(who_is(named("jane", "")).await, ("jane".into(), vec![authenticated.clone()]));
    let node = who_is(named("system:node:n1", "system:nodes")).await;
    assert_eq!(node, ("system:node:n1".into(), vec!["system:nodes".into(), authenticated]));
    // A good one goes before any token, also a bad one.
    let client = installation.client(&process, Some(&named("jane", ""))).with_token("nonsense");
    assert_eq!(who(&client).await.unwrap().0, "jane");
}

#[tokio::test]
async fn a_bad_certificate_is_a_401_and_a_token_beside_it_counts() {
    let (installation, process) = running("certificates-bad");
    let token = account_token(&installation.admin(&process)).await;
    for (what, issued) in bad_ones(&installation.authority) {
        let client = installation.client(&process, Some(&issued));
        assert_eq!(who(&client).await, unauthorized(), "a certificate {what}");
        // Not even what anybody may see.
        let (code, _) = client.ask("GET", "/version", None).await.unwrap();
        assert_eq!(code, 401, "a certificate {what}");
        let with_token = client.with_token(&token);
        assert_eq!(who(&with_token).await.unwrap().0, "system:serviceaccount:default:robot", "a certificate {what}");
        assert_eq!(who(&client.with_token("nonsense")).await, unauthorized(), "a certificate {what}");
    }
}

#[tokio::test]
async fn who_shows_nothing_is_nobody() {
    let (installation, process) = running("certificates-none");
    let nobody = installation.client(&process, None);
    let (code, answer) = nobody.ask("GET", MAPS, None).await.unwrap();
    let message = "configmaps is forbidden: User \"system:anonymous\" cannot list resource \"configmaps\" in API group \"\" \
                   in the namespace \"default\"";
    assert_eq!((code, &answer["message"]), (403, &Value::from(message)));
    assert_eq!(nobody.ask("GET", "/version", None).await.unwrap().0, 200);
    assert_eq!(who(&nobody.with_token("nonsense")).await, unauthorized());
}

/// A connection that was opened with a good certificate goes on by it, request after request.
#[tokio::test]
async fn one_connection_carries_many_requests_of_one_client() {
    let (installation, process) = running("certificates-one");
    let mut open = installation.admin(&process).open().await.unwrap();
    for number in 0..20 {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m{number}")}});
        assert_eq!(open.ask("POST", MAPS, Some(&map)).await.unwrap().0, 201);
    }
    let (code, list) = open.ask("GET", MAPS, None).await.unwrap();
    assert_eq!((code, list["items"].as_array().unwrap().len()), (200, 20));
}

/// Who has no certificates names a directory: they are made once, and the kubeconfig beside them is an administrator's.
#[tokio::test]
async fn a_directory_of_certificates_is_enough() {
    let scratch = Scratch::new("cert-dir");
    let dir = scratch.path("certs");
    let flags = ["--bind-address=127.0.0.1", "--secure-port=0", "--controllers=", "--unsupported-hint=ask Jane"];
    let flags = flags.map(str::to_owned).into_iter().chain([format!("--cert-dir={}", dir.display())]);
    let flags: Vec<String> = flags.collect();
    let mut authorities = Vec::new();
    for _ in 0..2 {
        let process = Process::start(&flags);
        let kubeconfig = kube::config::Kubeconfig::read_from(dir.join("admin.kubeconfig")).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
        let client = kube::Client::try_from(config).unwrap();
        let get = |path: &str| client.request_text(http::Request::get(path).body(Vec::new()).unwrap());
        assert!(get("/api/v1/namespaces").await.unwrap().contains("kube-system"));
        let kube::Error::Api(status) = get("/metrics").await.unwrap_err() else { panic!("it is not supported") };
        assert!(status.message.ends_with("; ask Jane"), "{}", status.message);
        authorities.push(bytes(&dir.join("ca.crt")));
        assert_eq!(process.kill().code(), None);
    }
    assert_eq!(authorities[0], authorities[1], "what is there is used again");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(dir.join("admin.key").metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

/// Sockets that a process has open, by its entries in `/proc`.
fn open_files(process: &Process) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", process.id())).map_or(0, Iterator::count)
}

/// A program without a free file descriptor accepts nobody, and goes on when others have gone.
#[tokio::test]
async fn a_server_that_ran_out_of_files_serves_again() {
    let (installation, process) = running("files");
    let most = open_files(&process) + 8;
    let limit = std::process::Command::new("prlimit")
        .args([format!("--pid={}", process.id()), format!("--nofile={most}:{most}")])
        .status();
    assert!(limit.unwrap().success());
    let mut crowd = Vec::new();
    for _ in 0..16 {
        crowd.push(tokio::net::TcpStream::connect(("127.0.0.1", process.port)).await.unwrap());
    }
    let full = async {
        while open_files(&process) < most {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), full).await.unwrap();
    drop(crowd);
    assert!(who(&installation.admin(&process)).await.is_ok(), "it serves again");
}
