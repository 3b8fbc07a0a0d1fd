//! Tests of [`super`].
use super::*;

/// What `e2e` with these options says against them.
fn suits(options: &[&str]) -> Result<()> {
    let line = ["harness", "e2e", "--repo", "/r", "--bin-dir", "/b"].iter().chain(options);
    match Cli::try_parse_from(line).unwrap().command {
        Command::E2e { common, make, .. } => make.suits(&common.provider),
        _ => unreachable!("the line says e2e"),
    }
}

#[test]
fn an_option_of_another_provider_is_refused_and_not_ignored() {
    let refused = |options: &[&str]| format!("{:#}", suits(options).unwrap_err());
    assert!(suits(&["--provider", "kind", "--kind-config", "f"]).is_ok());
    assert!(suits(&["--provider", "netns,kind", "--compare", "--kind-config", "f", "--control-plane", "d"]).is_ok());
    assert!(refused(&["--kind-config", "f"]).contains("--provider kind"));
    // What is chosen for may turn out to be netns.
    assert!(refused(&["--provider", "auto", "--kind-config", "f"]).contains("--provider kind"));
    assert!(suits(&["--control-plane", "d"]).is_ok() && suits(&["--provider", "auto", "--control-plane", "d"]).is_ok());
    assert!(refused(&["--provider", "kind", "--control-plane", "d"]).contains("--provider netns"));
}

/// A refusal of kind's configuration needs no engine: nothing was looked at, let alone made.
#[test]
fn a_configuration_that_portolan_cannot_work_on_is_refused_before_anything_starts() {
    let dir = std::env::temp_dir().join(format!("portolan-cli-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("kind.yaml");
    let text =
        "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnetworking: {ipFamily: dual, kubeProxyMode: nftables}\n";
    std::fs::write(&file, text).unwrap();
    let path = file.to_str().unwrap();
    let line = ["harness", "up", "--repo", "/r", "--bin-dir", "/b", "--provider", "kind", "--kind-config", path];
    let Command::Up { common, make } = Cli::try_parse_from(line).unwrap().command else { unreachable!("it says up") };
    let refused = prepare(&common, &make, true);
    std::fs::remove_dir_all(&dir).unwrap();
    let (code, error) = refused.unwrap_err();
    assert_eq!(code, USAGE);
    let text = format!("{error:#}");
    for reason in ["kube-proxy is on (nftables)", "a CNI is there already", "ipFamily is dual", "no worker", path] {
        assert!(text.contains(reason), "{reason}: {text}");
    }
}

#[test]
fn compare_takes_each_provider_and_the_named_control_plane_beside_our_own() {
    let names = |providers: &[Provider], control_plane: Option<&str>| -> Vec<String> {
        compared(providers, control_plane.map(Path::new)).into_iter().map(|(name, ..)| name).collect()
    };
    assert_eq!(names(&[], None), ["netns"]);
    assert_eq!(names(&[], Some("/k8s")), ["netns", "netns with the control plane of /k8s"]);
    assert_eq!(names(&[Provider::Netns, Provider::Kind], None), ["netns", "kind"]);
    let all = compared(&[Provider::Netns, Provider::Kind], Some(Path::new("/k8s")));
    let planes: Vec<_> = all.into_iter().map(|(_, _, plane)| plane.is_some()).collect();
    assert_eq!(planes, [false, true, false], "kind brings its own");
}
