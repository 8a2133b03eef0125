//! What is sent: a feed of ticks or trades, as frames of the wanted size and as the types they
//! decode to.
//!
//! Every client decodes the same bytes into the same types. A frame is assembled once; only its
//! time stamp, which has a fixed width, is written anew.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// How large an event is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Shape {
    /// One tick, which holds no text: about 100 bytes on the wire.
    Tick,
    /// One trade: about 150 bytes on the wire.
    One,
    /// So many trades in a list: about 90 bytes each.
    Rows(usize),
}

impl Shape {
    /// The frame of which is about so long.
    pub(crate) fn of_bytes(bytes: usize) -> Self {
        let row = trade(1).len() + 1;
        if bytes < TRADE_FROM {
            Self::Tick
        } else if bytes < 2 * row {
            Self::One
        } else {
            Self::Rows((bytes - 60) / row)
        }
    }
}

/// As little as an event may be: numbers only.
#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "decoded for what it costs")]
pub(crate) struct Tick {
    at: u64,
    price: f64,
    size: u32,
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

/// The data of [`Shape::Tick`].
#[derive(Debug, Deserialize)]
pub(crate) struct Small {
    tick: Tick,
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

impl Data for Small {
    fn sent_at(&self) -> u64 {
        self.tick.at.saturating_sub(STAMP_BASE)
    }
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

/// What is subscribed to: a document of usual length, the same for every shape, and variables that
/// differ.
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

/// The payload of an event: `{"data":{"tick":..}}` or `{"data":{"trades":..}}`.
pub(crate) fn payload(shape: Shape) -> String {
    let (field, value) = match shape {
        Shape::Tick => ("tick", format!(r#"{{"at":{STAMP_BASE},"price":1.23,"size":100}}"#)),
        Shape::One => ("trades", trade(0)),
        Shape::Rows(rows) => {
            ("trades", format!("[{}]", (0..rows).map(trade).collect::<Vec<_>>().join(",")))
        }
    };
    format!(r#"{{"data":{{"{field}":{value}}}}}"#)
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
    let price = format!("{}.{:02}", cents / 100, cents % 100);
    let lot = 1 + n % 500;
    format!(
        r#"{{"at":{STAMP_BASE},"symbol":"{symbol}","price":{price},"size":{lot},"side":"{side}"}}"#
    )
}

const DOCUMENT: &str = "subscription Trades($symbol: String) { \
                        trades(symbol: $symbol) { at symbol price size side } }";

/// From so many wanted bytes on, an event is a trade: half-way between the two.
const TRADE_FROM: usize = 125;

/// Added to every stamp, so that its width does not change; a float still holds it exactly.
const STAMP_BASE: u64 = 1_000_000_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamped_frame_of_any_shape_decodes_to_its_stamp() {
        fn stamped<T: Data>(shape: Shape) -> u64 {
            let mut frame = Frame::new("7", shape);
            frame.stamp(12_345);
            // After a header of two bytes, or of four.
            let start = if frame.bytes[1] < 126 { 2 } else { 4 };
            let value: serde_json::Value = serde_json::from_slice(&frame.bytes[start..]).unwrap();
            let response: Response<T> = serde_json::from_value(value["payload"].clone()).unwrap();
            response.data.unwrap().sent_at()
        }
        assert_eq!(stamped::<Small>(Shape::Tick), 12_345);
        assert_eq!(stamped::<One>(Shape::One), 12_345);
        assert_eq!(stamped::<Many>(Shape::Rows(3)), 12_345);
    }

    #[test]
    fn the_smallest_events_are_single_ones() {
        assert_eq!([90, 100].map(Shape::of_bytes), [Shape::Tick; 2]);
        assert_eq!(Shape::of_bytes(150), Shape::One);
    }

    #[test]
    fn sizes_are_what_their_names_say() {
        for id in ["1", "100", "100000"] {
            assert!((90..115).contains(&Frame::new(id, Shape::Tick).bytes.len()));
        }
        assert!((130..170).contains(&Frame::new("100", Shape::One).bytes.len()));
        for bytes in [512, 2_048, 8_192, 65_536, 1 << 20] {
            let len = Frame::new("1", Shape::of_bytes(bytes)).bytes.len();
            // To the nearest row, or to a tenth.
            assert!(len.abs_diff(bytes) < trade(1).len().max(bytes / 10), "{len} for {bytes}");
        }
    }
}
