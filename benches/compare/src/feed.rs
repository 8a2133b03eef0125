//! What is sent: a feed of trades, as frames of the wanted size and as the types they decode to.
//!
//! Every client decodes the same bytes into the same types. A frame is assembled once; only its time stamp, which has a
//! fixed width, is written anew.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// How large an event is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Shape {
    /// One trade: about 150 bytes on the wire.
    One,
    /// So many trades in a list: about 90 bytes each.
    Rows(usize),
}

impl Shape {
    /// The frame of which is about so long.
    pub(crate) fn of_bytes(bytes: usize) -> Self {
        let row = trade(1).len() + 1;
        if bytes < 2 * row { Self::One } else { Self::Rows((bytes - 60) / row) }
    }
}

/// A trade, with what is usual in such a type: text, numbers, an enumeration as text.
#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "decoded for what it costs")]
pub(crate) struct Trade {
    at: u64,
    symbol: String,
    price: f64,
    size: u32,
    side: String,
}

/// The data of [`Shape::One`].
#[derive(Debug, Deserialize)]
pub(crate) struct One {
    trades: Trade,
}

/// The data of [`Shape::Rows`].
#[derive(Debug, Deserialize)]
pub(crate) struct Many {
    trades: Vec<Trade>,
}

/// The data of one event.
pub(crate) trait Data: DeserializeOwned + Send + Unpin + 'static {
    /// When the server wrote it, as [`crate::measure::monotonic`] counts; 0 if it did not say.
    fn sent_at(&self) -> u64;
}

impl Data for One {
    fn sent_at(&self) -> u64 {
        self.trades.at.saturating_sub(STAMP_BASE)
    }
}

impl Data for Many {
    fn sent_at(&self) -> u64 {
        self.trades.first().map_or(0, |trade| trade.at.saturating_sub(STAMP_BASE))
    }
}

/// As the hand-written loops read it.
#[derive(Debug, Deserialize)]
pub(crate) struct Response<T> {
    pub(crate) data: Option<T>,
}

/// What is subscribed to: a document of usual length, and variables that differ.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Operation {
    query: &'static str,
    #[serde(rename = "operationName")]
    name: &'static str,
    variables: Variables,
}

#[derive(Clone, Debug, Serialize)]
struct Variables {
    symbol: String,
}

impl Operation {
    pub(crate) fn number(n: usize) -> Self {
        let query = DOCUMENT;
        Self { query, name: "Trades", variables: Variables { symbol: format!("SYM{n:06}") } }
    }

    /// Its length as JSON, in bytes: the same for every number.
    pub(crate) fn bytes() -> usize {
        serde_json::to_vec(&Self::number(0)).map_or(0, |json| json.len())
    }
}

/// A WebSocket frame with a `next` message, and where its time stamp is.
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    stamp: usize,
}

impl Frame {
    pub(crate) fn new(id: &str, shape: Shape) -> Self {
        let head = format!(r#"{{"id":"{id}","type":"next","payload":"#);
        let payload = payload(shape);
        let mut bytes = vec![0x81];
        header(&mut bytes, head.len() + payload.len() + 1);
        let stamp = bytes.len() + head.len() + payload.find("\"at\":").map_or(0, |at| at + 5);
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(payload.as_bytes());
        bytes.push(b'}');
        Self { bytes, stamp }
    }

    /// Says when it was sent.
    pub(crate) fn stamp(&mut self, nanos: u64) {
        let text = (STAMP_BASE + nanos).to_string();
        self.bytes[self.stamp..self.stamp + text.len()].copy_from_slice(text.as_bytes());
    }
}

/// The payload of an event: `{"data":{"trades":..}}`.
pub(crate) fn payload(shape: Shape) -> String {
    let trades = match shape {
        Shape::One => trade(0),
        Shape::Rows(rows) => format!("[{}]", (0..rows).map(trade).collect::<Vec<_>>().join(",")),
    };
    format!(r#"{{"data":{{"trades":{trades}}}}}"#)
}

/// The header's length field, unmasked; the first byte was written.
fn header(frame: &mut Vec<u8>, len: usize) {
    if let Ok(len @ 0..126) = u8::try_from(len) {
        frame.push(len);
    } else if let Ok(len) = u16::try_from(len) {
        frame.push(126);
        frame.extend_from_slice(&len.to_be_bytes());
    } else {
        frame.push(127);
        frame.extend_from_slice(&(len as u64).to_be_bytes());
    }
}

fn trade(n: usize) -> String {
    let (symbol, side) = [("BTC-USD", "SELL"), ("ETH-USD", "BUY")][n % 2];
    let cents = 100 + n * 7919 % 900_000;
    let (whole, rest) = (cents / 100, cents % 100);
    format!(
        r#"{{"at":{STAMP_BASE},"symbol":"{symbol}","price":{whole}.{rest:02},"size":{},"side":"{side}"}}"#,
        1 + n % 500
    )
}

const DOCUMENT: &str = "subscription Trades($symbol: String) { trades(symbol: $symbol) { at symbol price size side } }";

/// Added to every stamp, so that its width does not change; a float still holds it exactly.
const STAMP_BASE: u64 = 1_000_000_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamped_frame_decodes_to_its_stamp() {
        let mut frame = Frame::new("7", Shape::Rows(3));
        frame.stamp(12_345);
        let text = std::str::from_utf8(&frame.bytes[4..]).unwrap();
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        let response: Response<Many> = serde_json::from_value(value["payload"].clone()).unwrap();
        assert_eq!(response.data.unwrap().sent_at(), 12_345);
    }

    #[test]
    fn sizes_are_what_their_names_say() {
        assert!((130..170).contains(&Frame::new("100", Shape::One).bytes.len()));
        for bytes in [2_048, 65_536, 1 << 20] {
            let len = Frame::new("1", Shape::of_bytes(bytes)).bytes.len();
            assert!(len.abs_diff(bytes) < bytes / 10, "{len} for {bytes}");
        }
    }
}
