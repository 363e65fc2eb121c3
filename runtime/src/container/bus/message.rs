//! Messages of D-Bus as bytes (D-Bus Specification, "Message Protocol"), as far as service managers are spoken to. Pure.

/// A basic value, or an array of some, as it stands in a variant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Bool(bool),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Double(f64),
    Text(String),
    Texts(Vec<String>),
    Bytes(Vec<u8>),
    U32s(Vec<u32>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Self::Bool(_) => "b",
            Self::I32(_) => "i",
            Self::U32(_) => "u",
            Self::I64(_) => "x",
            Self::U64(_) => "t",
            Self::Double(_) => "d",
            Self::Text(_) => "s",
            Self::Texts(_) => "as",
            Self::Bytes(_) => "ay",
            Self::U32s(_) => "au",
        }
    }
}

/// Names with values, `a(sv)`.
pub(crate) type Properties = Vec<(String, Value)>;

/// A body that is being written, little-endian.
#[derive(Debug, Default)]
pub(crate) struct Body {
    signature: String,
    bytes: Vec<u8>,
}

impl Body {
    pub(crate) fn text(mut self, text: &str) -> Self {
        self.signature.push('s');
        put_text(&mut self.bytes, text);
        self
    }

    pub(crate) fn bool(mut self, value: bool) -> Self {
        self.signature.push('b');
        put_u32(&mut self.bytes, value.into());
        self
    }

    pub(crate) fn properties(mut self, properties: &[(String, Value)]) -> Self {
        self.signature.push_str("a(sv)");
        put_array(&mut self.bytes, 8, |bytes| {
            for (name, value) in properties {
                align(bytes, 8);
                put_text(bytes, name);
                put_variant(bytes, value);
            }
        });
        self
    }

    pub(crate) fn numbers(mut self, numbers: &[u32]) -> Self {
        self.signature.push_str("au");
        put_array(&mut self.bytes, 4, |bytes| numbers.iter().for_each(|n| put_u32(bytes, *n)));
        self
    }

    /// No auxiliary units: `a(sa(sv))` of nothing.
    pub(crate) fn no_units(mut self) -> Self {
        self.signature.push_str("a(sa(sv))");
        put_array(&mut self.bytes, 8, |_| {});
        self
    }
}

/// Where a call goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Method {
    pub(crate) destination: &'static str,
    pub(crate) path: &'static str,
    pub(crate) interface: &'static str,
    pub(crate) member: &'static str,
}

const CALL: u8 = 1;
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SENDER: u8 = 7;
const SIGNATURE: u8 = 8;

/// A method call as bytes.
pub(crate) fn call(serial: u32, method: &Method, body: &Body) -> Vec<u8> {
    let mut bytes = vec![b'l', CALL, 0, 1];
    put_u32(&mut bytes, length(body.bytes.len()));
    put_u32(&mut bytes, serial);
    put_array(&mut bytes, 8, |bytes| {
        let mut field = |code: u8, kind: &str, text: &str| {
            align(bytes, 8);
            bytes.push(code);
            put_signature(bytes, kind);
            if kind == "g" { put_signature(bytes, text) } else { put_text(bytes, text) }
        };
        field(PATH, "o", method.path);
        field(INTERFACE, "s", method.interface);
        field(MEMBER, "s", method.member);
        field(DESTINATION, "s", method.destination);
        if !body.signature.is_empty() {
            field(SIGNATURE, "g", &body.signature);
        }
    });
    align(&mut bytes, 8);
    bytes.extend_from_slice(&body.bytes);
    bytes
}

fn align(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

/// No message is that long: 128 MiB are the most that the protocol allows, and a bus refuses it by itself.
fn length(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn put_u32(bytes: &mut Vec<u8>, value: u32) {
    align(bytes, 4);
    bytes.extend_from_slice(&value.to_le_bytes());
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_u32(bytes, length(text.len()));
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
}

fn put_signature(bytes: &mut Vec<u8>, signature: &str) {
    bytes.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
    bytes.extend_from_slice(signature.as_bytes());
    bytes.push(0);
}

/// An array of elements that are aligned to `to`. Its length doesn't count the padding before the first.
fn put_array(bytes: &mut Vec<u8>, to: usize, elements: impl FnOnce(&mut Vec<u8>)) {
    put_u32(bytes, 0);
    let at = bytes.len() - 4;
    align(bytes, to);
    let start = bytes.len();
    elements(bytes);
    let written = length(bytes.len() - start).to_le_bytes();
    bytes[at..at + 4].copy_from_slice(&written);
}

fn put_variant(bytes: &mut Vec<u8>, value: &Value) {
    put_signature(bytes, value.signature());
    match value {
        Value::Bool(value) => put_u32(bytes, (*value).into()),
        Value::I32(value) => put_u32(bytes, value.cast_unsigned()),
        Value::U32(value) => put_u32(bytes, *value),
        Value::I64(value) => put_u64(bytes, value.cast_unsigned()),
        Value::U64(value) => put_u64(bytes, *value),
        Value::Double(value) => put_u64(bytes, value.to_bits()),
        Value::Text(text) => put_text(bytes, text),
        Value::Texts(texts) => put_array(bytes, 4, |bytes| texts.iter().for_each(|text| put_text(bytes, text))),
        Value::Bytes(list) => put_array(bytes, 1, |bytes| bytes.extend_from_slice(list)),
        Value::U32s(list) => put_array(bytes, 4, |bytes| list.iter().for_each(|n| put_u32(bytes, *n))),
    }
}

fn put_u64(bytes: &mut Vec<u8>, value: u64) {
    align(bytes, 8);
    bytes.extend_from_slice(&value.to_le_bytes());
}

/// A message that came in.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Incoming {
    pub(crate) kind: Kind,
    /// The call that it answers.
    pub(crate) answers: u32,
    /// The unique name of its sender, by the bus's word.
    pub(crate) sender: String,
    pub(crate) member: String,
    pub(crate) error: String,
    /// Those at the body's beginning that are numbers or text.
    pub(crate) arguments: Vec<Argument>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) enum Kind {
    Return,
    Error,
    Signal,
    #[default]
    Other,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Argument {
    Number(u32),
    Text(String),
}

impl Incoming {
    /// The argument at `index`, if it is text.
    pub(crate) fn text(&self, index: usize) -> Option<&str> {
        match self.arguments.get(index) {
            Some(Argument::Text(text)) => Some(text),
            _ => None,
        }
    }
}

/// Bytes of a message's beginning that tell its length.
pub(crate) const PREFIX: usize = 16;
/// No answer that is waited for is longer, in bytes.
const LONGEST: usize = 1 << 20;

/// The length of the message that begins with these 16 bytes. `None`: it is too long, or of another byte order.
pub(crate) fn whole_length(prefix: &[u8]) -> Option<usize> {
    if prefix.first() != Some(&b'l') {
        return None;
    }
    let number = |at: usize| Some(u32::from_le_bytes(prefix.get(at..at + 4)?.try_into().ok()?) as usize);
    let header = PREFIX.checked_add(number(12)?)?.checked_next_multiple_of(8)?;
    header.checked_add(number(4)?).filter(|length| *length <= LONGEST)
}

/// Reads a whole message. `None`: it is malformed.
pub(crate) fn parse(bytes: &[u8]) -> Option<Incoming> {
    let mut reader = Reader { bytes, at: 12 };
    let mut incoming = Incoming {
        kind: match bytes.get(1)? {
            2 => Kind::Return,
            3 => Kind::Error,
            4 => Kind::Signal,
            _ => Kind::Other,
        },
        ..Incoming::default()
    };
    let end = usize::try_from(reader.u32()?).ok()?.checked_add(PREFIX)?;
    let mut signature = String::new();
    while reader.at < end {
        reader.align(8)?;
        let code = reader.byte()?;
        match (code, reader.signature()?.as_str()) {
            (REPLY_SERIAL, "u") => incoming.answers = reader.u32()?,
            (MEMBER, "s") => incoming.member = reader.text()?,
            (SENDER, "s") => incoming.sender = reader.text()?,
            (ERROR_NAME, "s") => incoming.error = reader.text()?,
            (SIGNATURE, "g") => signature = reader.signature()?,
            (_, "s" | "o") => drop(reader.text()?),
            (_, "u") => drop(reader.u32()?),
            (_, "g") => drop(reader.signature()?),
            _ => return None,
        }
    }
    reader.align(8)?;
    for kind in signature.chars() {
        incoming.arguments.push(match kind {
            's' | 'o' => Argument::Text(reader.text()?),
            'u' => Argument::Number(reader.u32()?),
            // The rest doesn't matter to anybody here.
            _ => break,
        });
    }
    Some(incoming)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) -> Option<()> {
        self.at = self.at.checked_next_multiple_of(to)?;
        Some(())
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(n)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u32(&mut self) -> Option<u32> {
        self.align(4)?;
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<String> {
        let length = self.u32()?;
        self.zero_terminated(usize::try_from(length).ok()?)
    }

    fn signature(&mut self) -> Option<String> {
        let length = self.byte()?;
        self.zero_terminated(length.into())
    }

    fn zero_terminated(&mut self, length: usize) -> Option<String> {
        let text = std::str::from_utf8(self.take(length)?).ok()?.to_owned();
        (self.byte()? == 0).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const METHOD: Method = Method { destination: "d.d", path: "/p", interface: "i.i", member: "M" };

    #[test]
    fn a_call_is_laid_out_as_the_specification_says() {
        let body = Body::default().text("ab").properties(&[("N".into(), Value::U64(5))]);
        let bytes = call(7, &METHOD, &body);
        assert_eq!(&bytes[..4], b"l\x01\0\x01");
        assert_eq!(whole_length(&bytes[..16]), Some(bytes.len()));
        let read = parse(&bytes).unwrap();
        assert_eq!((read.kind, read.member.as_str(), read.text(0)), (Kind::Other, "M", Some("ab")));
        // The body by hand: text at 0, the array's length at 8, its first structure at 16, which holds a name, a signature, and at
        // a multiple of 8 the number.
        let mut expected = b"\x02\0\0\0ab\0\0".to_vec();
        expected.extend(24_u32.to_le_bytes());
        expected.extend([0; 4]);
        expected.extend(b"\x01\0\0\0N\0\x01t\0\0\0\0\0\0\0\0");
        expected.extend(5_u64.to_le_bytes());
        assert_eq!(&bytes[bytes.len() - expected.len()..], expected);
    }

    /// An answer as a bus would write it.
    fn answer(kind: u8, fields: &[(u8, &str, &str)], signature: &str, text: &str) -> Vec<u8> {
        let mut body = Vec::new();
        put_text(&mut body, text);
        let mut bytes = vec![b'l', kind, 0, 1];
        put_u32(&mut bytes, length(body.len()));
        put_u32(&mut bytes, 1);
        put_array(&mut bytes, 8, |bytes| {
            align(bytes, 8);
            bytes.push(REPLY_SERIAL);
            put_signature(bytes, "u");
            put_u32(bytes, 9);
            for (code, kind, text) in fields {
                align(bytes, 8);
                bytes.push(*code);
                put_signature(bytes, kind);
                put_text(bytes, text);
            }
            align(bytes, 8);
            bytes.push(SIGNATURE);
            put_signature(bytes, "g");
            put_signature(bytes, signature);
        });
        align(&mut bytes, 8);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn answers_are_read() {
        let bytes = answer(3, &[(ERROR_NAME, "s", "a.b.C"), (7, "s", ":1.0")], "s", "no such unit");
        let read = parse(&bytes).unwrap();
        assert_eq!((read.kind, read.answers, read.error.as_str()), (Kind::Error, 9, "a.b.C"));
        assert_eq!(read.text(0), Some("no such unit"));
        for cut in 0..bytes.len() {
            let _ = parse(&bytes[..cut]);
        }
        assert_eq!(parse(&bytes[..bytes.len() - 1]), None);
    }

    #[test]
    fn what_is_too_long_or_of_another_order_is_refused() {
        let mut bytes = answer(2, &[], "s", "x");
        assert!(whole_length(&bytes[..16]).is_some());
        bytes[0] = b'B';
        assert_eq!(whole_length(&bytes[..16]), None);
        bytes[0] = b'l';
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(whole_length(&bytes[..16]), None);
        assert_eq!(whole_length(&bytes[..10]), None);
    }

    #[test]
    fn a_signal_says_whose_it_is() {
        let bytes = answer(4, &[(MEMBER, "s", "JobRemoved"), (SENDER, "s", ":1.666")], "s", "x");
        let signal = parse(&bytes).unwrap();
        assert_eq!(
            (signal.kind, signal.member.as_str(), signal.sender.as_str()),
            (Kind::Signal, "JobRemoved", ":1.666")
        );
        assert_eq!(parse(&answer(4, &[(MEMBER, "s", "JobRemoved")], "s", "x")).unwrap().sender, "");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_none(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = parse(&bytes);
            let _ = whole_length(&bytes);
        }

        #[test]
        fn any_byte_of_an_answer_may_be_wrong(at in 0_usize..80, value in any::<u8>()) {
            let mut bytes = answer(4, &[(MEMBER, "s", "JobRemoved")], "uoss", "x");
            let at = at % bytes.len();
            bytes[at] = value;
            let _ = parse(&bytes);
        }
    }
}
