//! A client of SPDY for tests: frames by hand, headers uncompressed.
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// What a server sends.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Heard {
    Reply(u32),
    Data { id: u32, last: bool, data: Vec<u8> },
    Ping(u32),
    GoAway,
}

/// One end of a connection.
pub(in super::super) struct Client {
    io: DuplexStream,
    opened: u32,
    headers: super::header::Decoder,
}

impl Client {
    pub(in super::super) fn new(io: DuplexStream) -> Self {
        Self { io, opened: 0, headers: super::header::Decoder::new() }
    }

    async fn control(&mut self, kind: u8, flags: u8, payload: &[u8]) {
        let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
        self.write(&[&[0x80, 3, 0, kind, flags], &length[..], payload].concat()).await;
    }

    pub(in super::super) async fn write(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.unwrap();
    }

    /// Opens a stream; its reply is still to be heard.
    pub(in super::super) async fn open(&mut self, headers: &[(&str, &str)], last: bool) -> u32 {
        let number = |number: usize| u32::try_from(number).unwrap().to_be_bytes();
        let mut plain = number(headers.len()).to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend_from_slice(&number(text.len()));
            plain.extend_from_slice(text.as_bytes());
        }
        let length = u16::try_from(plain.len()).unwrap();
        let head: &[u8] = if self.opened == 0 { &[0x78, 0x01] } else { &[] };
        let block = [head, &[0], &length.to_le_bytes(), &(!length).to_le_bytes(), &plain].concat();
        let id = 2 * self.opened + 1;
        self.opened += 1;
        let payload = [&id.to_be_bytes()[..], &[0; 6], &block].concat();
        self.control(1, u8::from(last), &payload).await;
        id
    }

    pub(in super::super) async fn send(&mut self, id: u32, last: bool, data: &[u8]) {
        self.write(&super::frame::data(id, last, data)).await;
    }

    pub(in super::super) async fn reset(&mut self, id: u32) {
        self.control(3, 0, &[&id.to_be_bytes()[..], &5_u32.to_be_bytes()].concat()).await;
    }

    pub(in super::super) async fn ping(&mut self, id: u32) {
        self.write(&super::frame::ping(id)).await;
    }

    /// The next frame; none at the end.
    pub(in super::super) async fn hear(&mut self) -> Option<Heard> {
        let mut head = [0; 8];
        if self.io.read(&mut head[..1]).await.unwrap() == 0 {
            return None;
        }
        self.io.read_exact(&mut head[1..]).await.unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize];
        self.io.read_exact(&mut payload).await.unwrap();
        let word = |bytes: &[u8]| u32::from_be_bytes(*bytes.first_chunk().unwrap());
        Some(match head {
            [0x80, 3, 0, 2, ..] => {
                assert!(self.headers.decode(&payload[4..]).unwrap().is_empty());
                Heard::Reply(word(&payload))
            }
            [0x80, 3, 0, 6, ..] => Heard::Ping(word(&payload)),
            [0x80, 3, 0, 7, ..] => Heard::GoAway,
            [0x80, ..] => panic!("no frame that a server sends: {head:02x?}"),
            _ => Heard::Data { id: word(&head), last: head[4] & 1 == 1, data: payload },
        })
    }

    /// Everything up to the end, the bytes of each stream joined.
    pub(in super::super) async fn rest(&mut self) -> std::collections::BTreeMap<u32, (Vec<u8>, bool)> {
        let mut streams = std::collections::BTreeMap::<u32, (Vec<u8>, bool)>::new();
        while let Some(heard) = self.hear().await {
            if let Heard::Data { id, last, data } = heard {
                let stream = streams.entry(id).or_default();
                assert!(!stream.1, "stream {id} goes on after its end");
                stream.0.extend_from_slice(&data);
                stream.1 = last;
            }
        }
        streams
    }
}
