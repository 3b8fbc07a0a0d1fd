//! Tests of [`super`].
use super::*;

const HEAD: &str = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n";
const NODES: &str = "nodes: [{role: control-plane}, {role: worker}]\n";

#[track_caller]
fn refused(text: &str, why: &str) {
    let error = format!("{:#}", parse(&format!("{HEAD}{text}")).unwrap_err());
    assert!(error.contains(why), "{error}");
}

#[test]
fn clusters_that_portolan_cannot_work_on_are_refused_with_the_way_out() {
    let good = "networking: {disableDefaultCNI: true, kubeProxyMode: none}\n";
    assert!(parse(&format!("{HEAD}{good}{NODES}")).is_ok());
    refused(&format!("networking: {{disableDefaultCNI: true}}\n{NODES}"), "kubeProxyMode: none");
    refused(&format!("networking: {{disableDefaultCNI: true, kubeProxyMode: nftables}}\n{NODES}"), "(nftables)");
    refused(&format!("networking: {{kubeProxyMode: none}}\n{NODES}"), "disableDefaultCNI: true");
    let family = "networking: {disableDefaultCNI: true, kubeProxyMode: none, ipFamily: dual}\n";
    refused(&format!("{family}{NODES}"), "ipFamily is dual");
    refused(&format!("{good}nodes: [{{role: control-plane}}, {{role: control-plane}}, {{role: worker}}]"), "2 control");
    refused(good, "no worker");
    assert!(parse("kind: Cluster\napiVersion: kind.sigs.k8s.io/v1alpha3\n").is_err());
}

#[test]
fn the_walkthroughs_own_configuration_is_taken_as_it_is() {
    let text = format!(
        "{HEAD}networking:\n  disableDefaultCNI: true\n  kubeProxyMode: \"none\"\nnodes:\n  - role: control-plane\n  \
         - role: worker\n  - role: worker\n\ncontainerdConfigPatches:\n- |-\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n"
    );
    let config = parse(&text).unwrap();
    let path = Path::new("/x");
    let complete = complete(config.clone(), &Mounts { policy: path, logs: path, tools: path }, false);
    assert_eq!(complete["containerdConfigPatches"], config["containerdConfigPatches"]);
    assert_eq!(complete["networking"], config["networking"]);
    assert_eq!(complete["nodes"].as_array().unwrap().len(), 3);
}

#[test]
fn what_a_user_mounts_and_patches_stays_beside_ours() {
    let text = format!(
        "{HEAD}networking: {{disableDefaultCNI: true, kubeProxyMode: none}}\nkubeadmConfigPatches: [theirs]\n\
         nodes: [{{extraMounts: [{{hostPath: /a, containerPath: /a}}]}}, {{role: worker}}]\n"
    );
    let path = Path::new("/x");
    let config = complete(parse(&text).unwrap(), &Mounts { policy: path, logs: path, tools: path }, true);
    assert_eq!(config["nodes"][0]["extraMounts"].as_array().unwrap().len(), 4);
    assert_eq!(config["nodes"][1]["extraMounts"].as_array().unwrap().len(), 1);
    let patches = config["kubeadmConfigPatches"].as_array().unwrap();
    assert_eq!(patches[0], "theirs");
    assert!(patches.iter().any(|patch| patch.as_str().is_some_and(|text| text.contains("failCgroupV1: false"))));
}
