//! Tests of [`super::unkept`], by what a whole server answers.
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::{ApiServer, Options};

async fn ask(server: &ApiServer, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let answer = server.handle(request.body(Full::new(body)).unwrap()).await;
    let code = answer.status().as_u16();
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&text).unwrap())
}

#[tokio::test]
async fn what_nothing_would_keep_is_refused_with_the_way_out_and_there_is_none_of_it() {
    let server = ApiServer::start(Options { seed: 1, ..Options::default() }).unwrap();
    for (collection, kind) in [
        ("/api/v1/namespaces/default/resourcequotas", "a ResourceQuota"),
        ("/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers", "a HorizontalPodAutoscaler"),
        ("/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers", "a HorizontalPodAutoscaler"),
        ("/apis/batch/v1/namespaces/default/cronjobs", "a CronJob"),
        ("/apis/certificates.k8s.io/v1/certificatesigningrequests", "a CertificateSigningRequest"),
        ("/apis/storage.k8s.io/v1/volumeattachments", "a VolumeAttachment"),
        ("/apis/storage.k8s.io/v1/namespaces/default/csistoragecapacities", "a CSIStorageCapacity"),
        ("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", "a ValidatingWebhookConfiguration"),
        ("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies", "a ValidatingAdmissionPolicy"),
    ] {
        let (code, made) = ask(&server, "POST", collection, &json!({"metadata": {"name": "x"}})).await;
        let message = made["message"].as_str().unwrap();
        assert_eq!((code, &made["reason"]), (501, &json!("NotImplemented")), "{collection}: {made}");
        assert!(
            message.starts_with(kind) && message.ends_with("; use a real kube-apiserver for it"),
            "{collection}: {message}"
        );
        let (code, listed) = ask(&server, "GET", collection, &Value::Null).await;
        assert_eq!((code, &listed["items"]), (200, &json!([])), "{collection}: {listed}");
    }
}
