//! What lies between a client and the API server, and goes wrong there. The client's code above it is the product's; the
//! server's below it answers as the real one does.

use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use apiserver::{ApiServer, User};
use bytes::Bytes;
use futures::stream::unfold;
use http::{HeaderValue, Request, Response, StatusCode, request};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use crate::case::{Case, Fault, HEALED, Loss, What, Which, Who};
use crate::ledger::{LEASES, Ledger, NODES, POOLS, Rule, SERVICES, SLICES, Writer};
use crate::mutant::Mutant;

type Answer = UnsyncBoxBody<Bytes, io::Error>;

/// How often a client tries again what was refused for the moment (as kube's clients do by default, but not for long).
const RETRIES: u64 = 5;

/// A fault at work.
struct Planted {
    who: Who,
    at: u64,
    until: u64,
    fault: Fault,
    /// Requests that it has met.
    met: AtomicU32,
}

/// The network of one run.
pub(crate) struct Network {
    pub(crate) server: ApiServer,
    pub(crate) mutant: Option<Mutant>,
    faults: Vec<Planted>,
    start: Instant,
    requests: AtomicU64,
    /// Writes that are on their way for longer.
    on_their_way: AtomicU32,
    ledger: Mutex<Ledger>,
}

impl Network {
    pub(crate) fn new(server: ApiServer, case: &Case, mutant: Option<Mutant>, trace: bool) -> Arc<Self> {
        let faults = case.items.iter().filter_map(|item| match &item.what {
            What::Fault(who, fault, lasts) => Some(Planted {
                who: *who,
                at: item.at,
                until: (item.at + lasts).min(HEALED),
                fault: fault.clone(),
                met: AtomicU32::new(0),
            }),
            What::Step(_) => None,
        });
        let ledger = Ledger::new(trace);
        Arc::new(Self {
            server,
            mutant,
            faults: faults.collect(),
            start: Instant::now(),
            requests: AtomicU64::new(0),
            on_their_way: AtomicU32::new(0),
            ledger: Mutex::new(ledger),
        })
    }

    /// Milliseconds since the start.
    pub(crate) fn ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// Waits until a moment in ms from the start.
    pub(crate) async fn until(&self, at: u64) {
        sleep_until(self.moment(at)).await;
    }

    fn moment(&self, at: u64) -> Instant {
        self.start + Duration::from_millis(at)
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    /// Notes that something went wrong for somebody.
    pub(crate) fn meet(&self, what: &'static str) {
        self.ledger().met.insert(what);
    }

    /// The faults that `who` meets now.
    fn active(&self, who: Who) -> impl Iterator<Item = &Planted> {
        let now = self.ms();
        self.faults.iter().filter(move |planted| planted.who == who && (planted.at..planted.until).contains(&now))
    }

    /// Requests of users and other controllers: nothing goes wrong with them.
    pub(crate) async fn user(&self, method: &str, path: &str, body: &Value) -> (StatusCode, Value) {
        let media_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", media_type)
            .header("user-agent", "another-controller")
            .body(Full::new(body))
            .unwrap();
        let answer = self.server.handle(request).await;
        let nobody = Writer { who: None, late: false, knew: BTreeMap::new() };
        self.ledger().absorb(&self.server, self.ms(), &nobody);
        let status = answer.status();
        assert_ne!(status, StatusCode::BAD_REQUEST, "{method} {path} is no request");
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// Whether a write is still to arrive that its sender may have forgotten.
    pub(crate) fn awaits_late_writes(&self) -> bool {
        self.on_their_way.load(Ordering::Relaxed) > 0
    }

    /// History is forgotten.
    pub(crate) fn compact(&self) {
        self.server.compact(self.server.revision());
    }

    /// Whether this write to the node fails.
    pub(crate) fn node_write_fails(&self) -> bool {
        let fails = |planted: &Planted| matches!(planted.fault, Fault::Node { nth } if planted.count() == nth);
        let fails = self.active(Who::Agent).any(fails);
        if fails {
            self.meet("write to the node refused");
        }
        fails
    }
}

impl Planted {
    /// How many it has met, with this one.
    fn count(&self) -> u32 {
        self.met.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// What is told of each object that a list or a watch brings: resource, type of event, object.
pub(crate) type Listener = Box<dyn Fn(&'static str, &str, &Value) + Send + Sync>;

/// One life of a process.
pub(crate) struct Life {
    pub(crate) who: Who,
    pub(crate) dead: AtomicBool,
    pub(crate) killed: Notify,
    pub(crate) told_to_end: Notify,
    /// What a crash said about the next life.
    pub(crate) next: Mutex<Option<(u64, bool)>>,
    knew: Mutex<BTreeMap<&'static str, u64>>,
    /// Told of what comes by lists and watches.
    pub(crate) told: Option<Listener>,
}

impl Life {
    pub(crate) fn new(who: Who, told: Option<Listener>) -> Arc<Self> {
        Arc::new(Self {
            who,
            dead: AtomicBool::new(false),
            killed: Notify::new(),
            told_to_end: Notify::new(),
            next: Mutex::default(),
            knew: Mutex::default(),
            told,
        })
    }

    pub(crate) fn kill(&self, down: u64, renamed: bool) {
        *self.next.lock().unwrap() = Some((down, renamed));
        self.dead.store(true, Ordering::Relaxed);
        self.killed.notify_one();
    }

    /// What came by a list (`LIST`) or a line of a watch.
    fn hear(&self, resource: &'static str, kind: &str, object: &Value) {
        if let Some(revision) = object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()) {
            self.knew.lock().unwrap().insert(resource, revision);
        }
        if let Some(told) = &self.told {
            told(resource, kind, object);
        }
    }
}

/// As whom a process asks: its installed roles say what it may.
fn account(who: Who) -> User {
    let name = match who {
        Who::FirstOperator | Who::SecondOperator => "portolan-operator",
        Who::Agent => "portolan-agent",
    };
    User::service_account("kube-system", name, "")
}

/// A client's way to the server.
#[derive(Clone)]
pub(crate) struct Link {
    network: Arc<Network>,
    life: Arc<Life>,
}

/// What a request is about.
#[derive(Clone, Copy)]
struct Call {
    resource: Option<&'static str>,
    watch: bool,
    list: bool,
    write: bool,
}

impl Call {
    fn of(parts: &request::Parts) -> Self {
        let path = parts.uri.path();
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let named = |plural: &str| segments.iter().position(|segment| *segment == plural);
        let found = [
            ("services", SERVICES),
            ("ciliumloadbalancerippools", POOLS),
            ("endpointslices", SLICES),
            ("leases", LEASES),
            ("nodes", NODES),
        ]
        .into_iter()
        .find_map(|(plural, resource)| Some((named(plural)?, resource)));
        let write = parts.method != http::Method::GET;
        let collection = found.is_some_and(|(at, _)| at + 1 == segments.len());
        let watch = parts.uri.query().is_some_and(|query| query.contains("watch=true"));
        Self { resource: found.map(|(_, resource)| resource), watch, list: !write && collection && !watch, write }
    }

    fn is(self, which: Which) -> bool {
        match which {
            Which::All => true,
            Which::Reads => !self.write,
            Which::Writes => self.write,
        }
    }
}

impl Link {
    pub(crate) fn new(network: &Arc<Network>, life: &Arc<Life>) -> Self {
        Self { network: Arc::clone(network), life: Arc::clone(life) }
    }

    async fn exchange(self, request: Request<Body>) -> io::Result<Response<Answer>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let call = Call::of(&parts);
        for attempt in 0.. {
            let answer = self.once(&parts, &body, call).await?;
            if !matches!(answer.status().as_u16(), 429 | 503 | 504) || attempt == RETRIES {
                return Ok(answer);
            }
            let header = answer.headers().get(http::header::RETRY_AFTER);
            let seconds = header.and_then(|value| value.to_str().ok()?.parse().ok());
            sleep(seconds.map_or(Duration::from_millis(5 << attempt), Duration::from_secs)).await;
        }
        Err(io::Error::other("no attempt was made"))
    }

    async fn once(&self, parts: &request::Parts, body: &Bytes, call: Call) -> io::Result<Response<Answer>> {
        let who = self.life.who;
        self.live().await;
        let knew = self.life.knew.lock().unwrap().clone();
        let mut delay = 0;
        let mut loss = None;
        for planted in self.network.active(who) {
            match planted.fault {
                Fault::Refuse { which, code, retry_after, every }
                    if call.is(which) && planted.count().is_multiple_of(every) =>
                {
                    self.network.meet(match code {
                        409 => "conflict",
                        429 => "too many requests",
                        _ => "server error",
                    });
                    return Ok(refused(code, retry_after));
                }
                Fault::Slow { which, delay: more } if call.is(which) => {
                    self.network.meet(if call.list { "slow list" } else { "slow request" });
                    delay += more;
                }
                Fault::Lose { how, every } if call.write && planted.count().is_multiple_of(every) => loss = Some(how),
                _ => {}
            }
        }
        let crash = call.write && call.resource != Some(LEASES);
        if crash && self.crashes(false) {
            return pending().await;
        }
        // A little time, not always the same.
        let number = self.network.requests.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(1 + number % 3)).await;
        self.live().await;
        let answer = if delay > 0 && call.write {
            // It is on its way, whatever becomes of its sender.
            let (sender, receiver) = oneshot::channel();
            let (link, parts, body) = (self.clone(), parts.clone(), body.clone());
            self.network.on_their_way.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                sleep(Duration::from_millis(delay)).await;
                let late = sender.is_closed();
                let answer = link.arrive(&parts, body, call, knew, late).await;
                link.network.on_their_way.fetch_sub(1, Ordering::Relaxed);
                let _ = sender.send(answer);
            });
            receiver.await.map_err(io::Error::other)?
        } else {
            sleep(Duration::from_millis(delay)).await;
            self.arrive(parts, body.clone(), call, knew, false).await
        };
        if crash && self.crashes(true) {
            return pending().await;
        }
        if let Some(loss) = loss {
            self.network.meet(match loss {
                Loss::Reset => "connection lost",
                Loss::Timeout => "answer 504 to a write that was done",
                Loss::Silence => "no answer",
            });
        }
        match loss {
            None => answer,
            Some(Loss::Reset) => Err(io::Error::new(io::ErrorKind::ConnectionReset, "the answer was lost")),
            Some(Loss::Timeout) => Ok(refused(504, None)),
            Some(Loss::Silence) => pending().await,
        }
    }

    /// Whether the process is killed at this write.
    fn crashes(&self, done: bool) -> bool {
        for planted in self.network.active(self.life.who) {
            if let Fault::Crash { nth, after, down, renamed } = planted.fault
                && after == done
                && planted.count() == nth
            {
                self.network.meet(if done { "crash after a write" } else { "crash before a write" });
                self.life.kill(down, renamed);
                return true;
            }
        }
        false
    }

    /// Waits for ever if the process is dead.
    async fn live(&self) {
        if self.life.dead.load(Ordering::Relaxed) {
            pending::<()>().await;
        }
    }

    /// The request is at the server.
    async fn arrive(
        &self,
        parts: &request::Parts,
        body: Bytes,
        call: Call,
        knew: BTreeMap<&'static str, u64>,
        late: bool,
    ) -> io::Result<Response<Answer>> {
        let body = match self.network.mutant {
            Some(mutant) if call.write => mutant.on_write(&self.network, self.life.who, call.resource, body),
            _ => body,
        };
        let mut request = Request::from_parts(parts.clone(), Full::new(body));
        request.extensions_mut().insert(account(self.life.who));
        let answer = self.network.server.handle(request).await;
        let late = late || self.life.dead.load(Ordering::Relaxed);
        if late && call.write {
            self.network.meet("write that came late");
        }
        let writer = Writer { who: Some(self.life.who), late, knew };
        let now = self.network.ms();
        self.network.ledger().absorb(&self.network.server, now, &writer);
        let (head, body) = answer.into_parts();
        if head.status == StatusCode::FORBIDDEN {
            let who = self.life.who;
            let text = format!("{who:?} may not {} {}", parts.method, parts.uri);
            self.network.ledger().break_rule(Rule::Allowed, now, text);
        }
        if call.write && call.resource != Some(LEASES) && !head.status.is_success() {
            let who = self.life.who;
            self.network
                .ledger()
                .tell(now, || format!("{who:?}: {} {} was answered {}", parts.method, parts.uri, head.status));
        }
        let Some(resource) = call.resource else {
            return Ok(Response::from_parts(head, body.map_err(|never| match never {}).boxed_unsync()));
        };
        if call.watch && head.status.is_success() {
            return Ok(Response::from_parts(head, self.watch(resource, body)));
        }
        let mut bytes =
            body.map_err(|never| match never {}).collect().await.map_err(|never: io::Error| never)?.to_bytes();
        if call.list && head.status.is_success() {
            let mut list: Value = serde_json::from_slice(&bytes)?;
            self.life.hear(resource, "LIST", &list);
            if let Some(mutant) = self.network.mutant {
                mutant.on_list(self.life.who, resource, &mut list);
                bytes = Bytes::from(list.to_string());
            }
        }
        Ok(Response::from_parts(head, Full::new(bytes).map_err(|never| match never {}).boxed_unsync()))
    }

    fn watch(&self, resource: &'static str, body: apiserver::Body) -> Answer {
        let watch = Watch { link: self.clone(), resource, body, opened: self.network.ms() };
        StreamBody::new(unfold(watch, Watch::next)).boxed_unsync()
    }
}

impl tower_service::Service<Request<Body>> for Link {
    type Response = Response<Answer>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Response<Answer>>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().exchange(request))
    }
}

/// An open watch on its way to the client.
struct Watch {
    link: Link,
    resource: &'static str,
    body: apiserver::Body,
    opened: u64,
}

impl Watch {
    async fn next(mut self) -> Option<(io::Result<Frame<Bytes>>, Self)> {
        loop {
            let (until, cut) = self.held();
            let network = Arc::clone(&self.link.network);
            if let Some(until) = until {
                network.meet("watch held up");
                network.until(until).await;
                if cut {
                    return None;
                }
                continue;
            }
            let next = self.next_change();
            tokio::select! {
                biased;
                () = network.until(next) => {
                    if self.is_cut(next) {
                        network.meet("watch cut");
                        return None;
                    }
                }
                frame = self.body.frame() => {
                    let frame = frame?.unwrap_or_else(|never| match never {});
                    return self.pass(frame).await;
                }
            }
        }
    }

    /// Until when nothing comes, and whether the watch ends then.
    fn held(&self) -> (Option<u64>, bool) {
        let held = self.faults().find_map(|planted| match planted.fault {
            Fault::HoldWatches { cut }
                if self.link.network.ms() >= planted.at && self.link.network.ms() < planted.until =>
            {
                Some((planted.until, cut))
            }
            _ => None,
        });
        held.map_or((None, false), |(until, cut)| (Some(until), cut))
    }

    fn faults(&self) -> impl Iterator<Item = &Planted> {
        let who = self.link.life.who;
        self.link.network.faults.iter().filter(move |planted| planted.who == who)
    }

    /// When the next fault begins to bear on this watch.
    fn next_change(&self) -> u64 {
        let now = self.link.network.ms();
        let begins = self.faults().filter(|planted| {
            matches!(planted.fault, Fault::CutWatches | Fault::HoldWatches { .. }) && planted.at > now
        });
        begins.map(|planted| planted.at).min().unwrap_or(u64::from(u32::MAX))
    }

    fn is_cut(&self, at: u64) -> bool {
        self.faults()
            .any(|planted| matches!(planted.fault, Fault::CutWatches) && planted.at == at && planted.at >= self.opened)
    }

    async fn pass(self, frame: Frame<Bytes>) -> Option<(io::Result<Frame<Bytes>>, Self)> {
        let who = self.link.life.who;
        let delays = self.link.network.active(who).filter_map(|planted| match planted.fault {
            Fault::DelayWatches(delay) => Some(delay),
            _ => None,
        });
        let delay = delays.max().unwrap_or(0);
        if delay > 0 {
            self.link.network.meet("watch delayed");
            sleep(Duration::from_millis(delay)).await;
        }
        let Some(line) = frame.data_ref() else { return Some((Ok(frame), self)) };
        let event: Value = match serde_json::from_slice(line) {
            Ok(event) => event,
            Err(error) => return Some((Err(error.into()), self)),
        };
        let kind = event["type"].as_str().unwrap_or_default();
        if kind == "ERROR" {
            self.link.network.meet("410 in a watch");
        }
        if self.link.network.mutant.is_some_and(|mutant| mutant.swallows(who, self.resource, kind)) {
            return Some((Ok(Frame::data(Bytes::new())), self));
        }
        self.link.life.hear(self.resource, kind, &event["object"]);
        if let Some(delay) = self.link.network.mutant.and_then(|mutant| mutant.dawdles(who, self.resource)) {
            sleep(delay).await;
        }
        Some((Ok(frame), self))
    }
}

fn refused(code: u16, retry_after: Option<u64>) -> Response<Answer> {
    let reason = match code {
        409 => "Conflict",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "reason": reason, "message": "a planted fault"});
    let body = Full::new(Bytes::from(status.to_string())).map_err(|never| match never {});
    let mut answer = Response::new(body.boxed_unsync());
    *answer.status_mut() = StatusCode::from_u16(code).unwrap();
    if let Some(seconds) = retry_after {
        answer.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}
