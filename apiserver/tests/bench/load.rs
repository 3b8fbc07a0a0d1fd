//! The load: everything is created while clients watch, then changed at a steady pace, then listed by all clients at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::Args;
use crate::numbers::Round;
use crate::process::client::{Client, Open};
use crate::subject::Subject;
use crate::watcher::{SERVICES, SLICES, Sent, Stream, take};

/// Longest time without the end of a phase.
const PATIENCE: Duration = Duration::from_secs(600);
/// Objects of a page, as kubectl asks for them.
const PAGE: usize = 500;

/// Measures one server.
pub(crate) async fn run(args: &Args, subject: &Subject) -> Result<Round> {
    let client = &subject.client;
    let namespace = json!({"metadata": {"name": "load"}});
    let (code, answer) = ask(&mut open(client).await?, "POST", "/api/v1/namespaces", Some(&namespace)).await?;
    ensure!(code == 201, "the namespace: {code} {answer}");
    let sent = Arc::new(Sent::new(2 * args.services));
    let (mut lags, mut streams) = watch(args, client, &sent).await?;
    let before = subject.memory()?;
    let began = Instant::now();
    create(args, client, &sent).await?;
    let created = began.elapsed();
    let flood = take(&mut lags, 2 * args.services * args.watchers, PATIENCE).await?;
    let filled = subject.memory()?;
    update(args, client, &sent).await?;
    let paced = take(&mut lags, args.updates * args.watchers, PATIENCE).await?;
    streams.abort_all();
    while streams.join_next().await.is_some() {}
    let (whole, bytes) = list(args, client, None).await?;
    let (pages, _) = list(args, client, Some(PAGE)).await?;
    let rate = 2.0 * args.services as f64 / created.as_secs_f64();
    let peak = subject.memory()?.peak;
    Ok(Round { rate, flood, paced, whole, pages, bytes, before, filled, peak })
}

async fn open(client: &Client) -> Result<Open> {
    client.open().await.map_err(anyhow::Error::from_boxed)
}

async fn ask(open: &mut Open, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
    open.ask(method, path, body).await.map_err(anyhow::Error::from_boxed)
}

/// Opens the watches of all clients.
async fn watch(args: &Args, client: &Client, sent: &Arc<Sent>) -> Result<(mpsc::UnboundedReceiver<u64>, JoinSet<()>)> {
    let (send, lags) = mpsc::unbounded_channel();
    let mut streams = JoinSet::new();
    for kind in [SERVICES, SLICES] {
        let (code, list) = ask(&mut open(client).await?, "GET", kind.path, None).await?;
        ensure!(code == 200, "{}: {code} {list}", kind.path);
        let revision = list["metadata"]["resourceVersion"].as_str().context("a list without revision")?.to_owned();
        for _ in 0..args.watchers {
            let stream = Stream { client: client.clone(), kind, sent: Arc::clone(sent), lags: send.clone() };
            let reading = stream.open(revision.clone()).await?;
            streams.spawn(async move {
                if let Err(error) = reading.await {
                    eprintln!("watch: {error:#}");
                }
            });
        }
    }
    Ok((lags, streams))
}

/// The object of a number: Services and slices in turns.
fn object(args: &Args, number: usize) -> (&'static str, Value) {
    let index = number / 2;
    let service = format!("{}{index:07}", SERVICES.prefix);
    if number.is_multiple_of(2) {
        let port = json!({"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"});
        let spec = json!({"selector": {"app": service}, "ports": [port], "type": "ClusterIP"});
        let metadata = json!({"name": service, "labels": {"app": service, "team": "load"}});
        return (SERVICES.path, json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}));
    }
    let range = (index * args.endpoints / args.services)..((index + 1) * args.endpoints / args.services);
    let endpoint = |number: usize| {
        let address = std::net::Ipv4Addr::from_bits(0x0a80_0000 + number as u32);
        let pod = json!({"kind": "Pod", "namespace": "load", "name": format!("pod-{number}")});
        json!({"addresses": [address.to_string()], "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": format!("node-{}", number % 100), "targetRef": pod})
    };
    let metadata = json!({"name": format!("{}{index:07}", SLICES.prefix),
        "labels": {"kubernetes.io/service-name": service, "endpointslice.kubernetes.io/managed-by": "bench"}});
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": range.map(endpoint).collect::<Vec<_>>()});
    (SLICES.path, slice)
}

async fn create(args: &Args, client: &Client, sent: &Arc<Sent>) -> Result<()> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut writers = JoinSet::new();
    for _ in 0..args.writers {
        let (args, client, sent, next) = (args.clone(), client.clone(), Arc::clone(sent), Arc::clone(&next));
        writers.spawn(async move {
            let mut open = open(&client).await?;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= 2 * args.services {
                    return anyhow::Ok(());
                }
                let (path, object) = object(&args, number);
                sent.send(number);
                let (code, answer) = ask(&mut open, "POST", path, Some(&object)).await?;
                ensure!(code == 201, "{path}: {code} {answer}");
            }
        });
    }
    all(writers).await?;
    Ok(())
}

async fn all<T: 'static>(mut tasks: JoinSet<Result<T>>) -> Result<Vec<T>> {
    let mut results = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        results.push(ended??);
    }
    Ok(results)
}

/// Changes Services one after the other, at the pace that is asked for or as fast as the server goes.
async fn update(args: &Args, client: &Client, sent: &Arc<Sent>) -> Result<()> {
    let mut open = open(client).await?;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / args.pace as u32);
    for number in 0..args.updates {
        ticks.tick().await;
        let index = number % args.services;
        let patch = json!({"metadata": {"labels": {"update": number.to_string()}}});
        sent.send(2 * index);
        let path = format!("{}/{}{index:07}", SERVICES.path, SERVICES.prefix);
        let (code, answer) = ask(&mut open, "PATCH", &path, Some(&patch)).await?;
        ensure!(code == 200, "{path}: {code} {answer}");
    }
    Ok(())
}

/// All clients list both at once; how long each took for both, and the bytes of one.
async fn list(args: &Args, client: &Client, page: Option<usize>) -> Result<(Vec<f64>, u64)> {
    let mut clients = JoinSet::new();
    for _ in 0..args.watchers {
        let client = client.clone();
        clients.spawn(async move {
            let mut open = open(&client).await?;
            let began = Instant::now();
            let mut bytes = 0;
            for kind in [SERVICES, SLICES] {
                bytes += pages(&mut open, kind.path, page).await?;
            }
            anyhow::Ok((began.elapsed().as_secs_f64(), bytes))
        });
    }
    let results = all(clients).await?;
    let bytes = results.first().map_or(0, |(_, bytes)| *bytes);
    Ok((results.into_iter().map(|(seconds, _)| seconds).collect(), bytes))
}

/// Lists everything, in pages or at once.
async fn pages(open: &mut Open, path: &str, page: Option<usize>) -> Result<u64> {
    let mut bytes = 0;
    let mut next = String::new();
    loop {
        let query = page.map_or(String::new(), |limit| format!("?limit={limit}&continue={next}"));
        let answer = open.send("GET", &format!("{path}{query}"), None).await.map_err(anyhow::Error::from_boxed)?;
        ensure!(answer.status() == 200, "{path}: {}", answer.status());
        let body = answer.into_body().collect().await?.to_bytes();
        bytes += body.len() as u64;
        // The token stands in the metadata of the list, before the items or after them; reading all would measure serde.
        let token = |text: &str| Some(text.split_once("\"continue\":\"")?.1.split_once('"')?.0.to_owned());
        let edge = 2000.min(body.len());
        let (head, tail) =
            (String::from_utf8_lossy(&body[..edge]), String::from_utf8_lossy(&body[body.len() - edge..]));
        match page.and_then(|_| token(&head).or_else(|| token(&tail))) {
            Some(token) if !token.is_empty() => next = token,
            _ => return Ok(bytes),
        }
    }
}
