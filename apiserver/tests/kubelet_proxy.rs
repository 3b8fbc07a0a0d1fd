//! Logs, exec and their like against a kubelet that is played here, over real sockets: what it is asked, what the client
//! gets of its answers, and that an upgraded connection carries bytes both ways, whatever its protocol.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use apiserver::{ApiServer, Connecting, Connection, KubeletDialer, KubeletOptions, Options};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Kubelets on plain TCP.
struct Plain;

impl KubeletDialer for Plain {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a> {
        Box::pin(async move { Ok(Box::new(TcpStream::connect((host, port)).await?) as Box<dyn Connection>) })
    }
}

/// Echoes what it was asked; an upgraded connection echoes bytes after the name of its protocol.
async fn kubelet(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let asked = format!("{} {}", request.method(), request.uri());
    if asked.contains("/waiting/") {
        let mut answer = Response::new(Full::from("container \"a\" in pod \"waiting\" is waiting to start"));
        *answer.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(answer);
    }
    let Some(protocol) = request.headers().get("upgrade").cloned() else {
        let secret = request.headers().contains_key("authorization");
        return Ok(Response::new(Full::from(format!("{asked} credentials={secret}"))));
    };
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.headers_mut().insert("connection", "Upgrade".parse().unwrap());
    answer.headers_mut().insert("upgrade", protocol.clone());
    answer.headers_mut().insert("x-asked", asked.parse().unwrap());
    tokio::spawn(async move {
        let mut stream = TokioIo::new(hyper::upgrade::on(&mut request).await.unwrap());
        stream.write_all(protocol.as_bytes()).await.unwrap();
        let (mut read, mut write) = tokio::io::split(stream);
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        write.shutdown().await.unwrap();
    });
    Ok(answer)
}

async fn listen<F, A>(service: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static) -> SocketAddr
where
    F: Future<Output = Result<Response<A>, Infallible>> + Send + 'static,
    A: http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(service.clone());
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection.with_upgrades());
        }
    });
    address
}

async fn ask(server: SocketAddr, request: Request<Full<Bytes>>) -> Response<Incoming> {
    let stream = TcpStream::connect(server).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await.unwrap()
}

async fn send(server: SocketAddr, method: &str, path: &str, body: Option<Value>) -> (StatusCode, String) {
    let request = Request::builder().method(method).uri(path).header("host", "api").header("authorization", "Bearer x");
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let answer = ask(server, request.body(Full::from(body)).unwrap()).await;
    let code = answer.status();
    (code, String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

/// A server with a node whose kubelet is ours, one with a kubelet that is not there, and pods on both.
async fn cluster(kubelets: Option<KubeletOptions>) -> SocketAddr {
    let kubelet = listen(kubelet).await;
    let options = Options::default();
    let options = match kubelets {
        Some(kubelets) => options.kubelets(kubelets),
        None => options,
    };
    let api = ApiServer::start(options).unwrap();
    let server = listen(move |mut request: Request<Incoming>| {
        // Who asks is not the matter here.
        request.headers_mut().remove("authorization");
        let api = api.clone();
        async move { Ok::<_, Infallible>(api.handle(request).await) }
    })
    .await;
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for (name, port) in [("n1", kubelet.port()), ("dead", dead.port())] {
        let node = json!({"metadata": {"name": name}, "status": {"addresses": [{"type": "InternalIP",
            "address": "127.0.0.1"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
        assert_eq!(send(server, "POST", "/api/v1/nodes", Some(node)).await.0, StatusCode::CREATED);
    }
    for (name, node) in [("p", "n1"), ("waiting", "n1"), ("lost", "dead"), ("new", "")] {
        let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": node,
            "containers": [{"name": "a", "image": "i"}]}});
        let (code, text) = send(server, "POST", "/api/v1/namespaces/default/pods", Some(pod)).await;
        assert_eq!(code, StatusCode::CREATED, "{text}");
    }
    server
}

fn way() -> Option<KubeletOptions> {
    Some(KubeletOptions::new(Arc::new(Plain)))
}

const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn a_log_is_what_the_kubelet_says() {
    let server = cluster(way()).await;
    let (code, text) = send(server, "GET", &format!("{PODS}/p/log?tailLines=3&pretty=1"), None).await;
    let want = "GET /containerLogs/default/p/a?tailLines=3 credentials=false";
    assert_eq!((code, text.as_str()), (StatusCode::OK, want));
    assert_eq!(send(server, "GET", &format!("{PODS}/new/log"), None).await, (StatusCode::NO_CONTENT, String::new()));
    let (code, text) = send(server, "GET", &format!("{PODS}/waiting/log"), None).await;
    let status: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert_eq!(status["message"], "container \"a\" in pod \"waiting\" is waiting to start");
    let (code, text) = send(server, "GET", &format!("{PODS}/lost/log"), None).await;
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(text.contains("dial tcp 127.0.0.1:") && text.contains("refused"), "{text}");
}

#[tokio::test]
async fn upgraded_connections_pass_through_whatever_they_speak() {
    let server = cluster(way()).await;
    for (method, protocol, path, asked) in [
        ("GET", "websocket", "p/exec?command=ls&stdout=true", "GET /exec/default/p/a?output=1&command=ls"),
        ("POST", "SPDY/3.1", "p/exec?command=ls&stdin=true", "POST /exec/default/p/a?input=1&command=ls"),
        ("GET", "websocket", "p/attach?stdout=1&container=a", "GET /attach/default/p/a?output=1"),
        ("GET", "websocket", "p/portforward?ports=80", "GET /portForward/default/p?port=80"),
        ("GET", "websocket", "p/portforward?ports=80,9&ports=7", "GET /portForward/default/p?port=80%2C9%2C7"),
    ] {
        let request = Request::builder().method(method).uri(format!("{PODS}/{path}")).header("host", "api");
        let request = request.header("connection", "Upgrade").header("upgrade", protocol);
        let mut answer = ask(server, request.body(Full::default()).unwrap()).await;
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS, "{path}");
        assert_eq!(answer.headers()["x-asked"], asked);
        assert_eq!(answer.headers()["upgrade"], protocol);
        let mut stream = TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap());
        stream.write_all(b" \x00\xff there and back").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, [protocol.as_bytes(), b" \x00\xff there and back"].concat());
    }
}

#[tokio::test]
async fn refusals_say_why() {
    let server = cluster(way()).await;
    let message = |text: String| serde_json::from_str::<Value>(&text).unwrap()["message"].as_str().unwrap().to_owned();
    let (code, text) = send(server, "GET", &format!("{PODS}/p/exec?command=ls"), None).await;
    assert_eq!((code, message(text).as_str()), (StatusCode::BAD_REQUEST, "Upgrade request required"));
    let (code, text) = send(server, "POST", &format!("{PODS}/new/exec?command=ls"), None).await;
    assert_eq!((code, message(text).as_str()), (StatusCode::BAD_REQUEST, "pod new does not have a host assigned"));
    let request = Request::builder().uri(format!("{PODS}/waiting/exec?command=ls")).header("host", "api");
    let request = request.header("connection", "Upgrade").header("upgrade", "websocket");
    let answer = ask(server, request.body(Full::default()).unwrap()).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    let server = cluster(None).await;
    let (code, text) = send(server, "GET", &format!("{PODS}/p/log"), None).await;
    assert_eq!(code, StatusCode::NOT_IMPLEMENTED, "{text}");
}

#[tokio::test]
async fn a_nodes_kubelet_is_asked_anything() {
    let server = cluster(way()).await;
    let (code, text) = send(server, "GET", "/api/v1/nodes/n1/proxy/pods?limit=2", None).await;
    assert_eq!((code, text.as_str()), (StatusCode::OK, "GET /pods?limit=2 credentials=false"));
    assert_eq!(send(server, "GET", "/api/v1/nodes/dead/proxy/pods", None).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(send(server, "GET", "/api/v1/nodes/none/proxy/", None).await.0, StatusCode::NOT_FOUND);
}
