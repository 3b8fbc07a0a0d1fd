//! The table of the types of built-in kinds, `src/schema/types.txt`, is what `k8s-openapi` says. It is a committed file, so
//! that the library does not depend on `k8s-openapi`, whose version of Kubernetes only a program may choose.
//!
//! ```text
//! cargo test --package apiserver --test types -- --ignored    # writes it anew
//! ```

#![allow(clippy::unwrap_used, reason = "test code")]

use std::fmt::Write;
use std::path::{Path, PathBuf};

use k8s_openapi::{api, apiextensions_apiserver, apimachinery};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;

const HEADER: &str = "\
# Types of built-in kinds, one a line: the name, then its JSON schema. Made by `tests/types.rs` from k8s-openapi:
#   cargo test --package apiserver --test types -- --ignored
";

macro_rules! add {
    ($generator:ident: $($type:ty),* $(,)?) => { $( $generator.subschema_for::<$type>(); )* };
}

/// The kinds that are served, or only sent or shown; with them comes all that they hold.
fn table() -> String {
    let mut generator: SchemaGenerator = SchemaSettings::draft2020_12().into_generator();
    add!(generator:
        api::core::v1::Binding,
        api::core::v1::ConfigMap,
        api::core::v1::Endpoints,
        api::core::v1::Event,
        api::core::v1::LimitRange,
        api::core::v1::Namespace,
        api::core::v1::Node,
        api::core::v1::PersistentVolumeClaim,
        api::core::v1::PersistentVolume,
        api::core::v1::Pod,
        api::core::v1::ReplicationController,
        api::core::v1::ResourceQuota,
        api::core::v1::Secret,
        api::core::v1::ServiceAccount,
        api::core::v1::Service,
        api::apps::v1::ControllerRevision,
        api::apps::v1::DaemonSet,
        api::apps::v1::Deployment,
        api::apps::v1::ReplicaSet,
        api::apps::v1::StatefulSet,
        api::events::v1::Event,
        api::authentication::v1::SelfSubjectReview,
        api::authentication::v1::TokenReview,
        api::authentication::v1::TokenRequest,
        api::authorization::v1::LocalSubjectAccessReview,
        api::authorization::v1::SelfSubjectAccessReview,
        api::authorization::v1::SelfSubjectRulesReview,
        api::authorization::v1::SubjectAccessReview,
        api::autoscaling::v1::Scale,
        api::batch::v1::Job,
        api::autoscaling::v1::HorizontalPodAutoscaler,
        api::autoscaling::v2::HorizontalPodAutoscaler,
        api::batch::v1::CronJob,
        api::certificates::v1::CertificateSigningRequest,
        api::admissionregistration::v1::MutatingWebhookConfiguration,
        api::admissionregistration::v1::ValidatingAdmissionPolicy,
        api::admissionregistration::v1::ValidatingAdmissionPolicyBinding,
        api::admissionregistration::v1::ValidatingWebhookConfiguration,
        api::storage::v1::CSIStorageCapacity,
        api::storage::v1::VolumeAttachment,
        api::core::v1::PodTemplate,
        api::networking::v1::Ingress,
        api::networking::v1::IngressClass,
        api::networking::v1::NetworkPolicy,
        api::policy::v1::PodDisruptionBudget,
        api::policy::v1::Eviction,
        api::rbac::v1::ClusterRoleBinding,
        api::rbac::v1::ClusterRole,
        api::rbac::v1::RoleBinding,
        api::rbac::v1::Role,
        api::storage::v1::CSIDriver,
        api::storage::v1::CSINode,
        api::storage::v1::StorageClass,
        api::scheduling::v1::PriorityClass,
        api::coordination::v1::Lease,
        api::node::v1::RuntimeClass,
        api::discovery::v1::EndpointSlice,
        apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
        apimachinery::pkg::apis::meta::v1::DeleteOptions,
        apimachinery::pkg::apis::meta::v1::APIGroup,
        apimachinery::pkg::apis::meta::v1::APIGroupList,
        apimachinery::pkg::apis::meta::v1::APIVersions,
        apimachinery::pkg::apis::meta::v1::ListMeta,
        apimachinery::pkg::apis::meta::v1::Status,
        apimachinery::pkg::version::Info,
    );
    let mut table = HEADER.to_owned();
    for (name, schema) in generator.take_definitions(true) {
        writeln!(table, "{name} {schema}").unwrap();
    }
    table
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/schema/types.txt")
}

#[test]
fn the_table_is_what_k8s_openapi_says() {
    let (want, found) = (table(), std::fs::read_to_string(file()).unwrap());
    let differs = want.lines().zip(found.lines()).find(|(want, found)| want != found);
    let first = differs.map(|(want, found)| format!("\nit should say\n  {want:.200}\nand says\n  {found:.200}"));
    assert!(
        want == found,
        "{} is not what k8s-openapi says ({} lines, should be {}){}\nwrite it anew: cargo test --package apiserver --test \
         types -- --ignored",
        file().display(),
        found.lines().count(),
        want.lines().count(),
        first.unwrap_or_default()
    );
}

#[test]
#[ignore = "it writes the table anew"]
fn write_the_table() {
    std::fs::write(file(), table()).unwrap();
}
