//! What the server answers to a question, as a decision without sockets.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, Metadata, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{RData, Record, RecordType};

use super::server::Transport;

/// How a name is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// These addresses; a question for a family that is not among them gets an empty answer.
    Addresses(Vec<IpAddr>),
    /// The name exists and has no address of any family.
    Empty,
    /// The name does not exist.
    NxDomain,
    /// The server could not find out.
    ServFail,
    /// The server refuses to say.
    Refused,
    /// Nothing is sent back.
    Timeout,
    /// UDP answers say only "truncated"; TCP gives these addresses.
    Truncated(Vec<IpAddr>),
    /// UDP answers say only "truncated"; TCP connections are closed without an answer.
    TruncatedForGood,
    /// An answer that is not a DNS message.
    Garbage,
    /// Asked of the upstream, whatever the zone.
    Forward,
    /// The first of these to the first question, and so on, the last from then on; each record type is counted apart.
    InTurn(Vec<Self>),
}

impl Answer {
    /// The answer to a question that was asked so often before.
    fn after(&self, before: usize) -> &Self {
        match self {
            Self::InTurn(turns) => turns.get(before).or_else(|| turns.last()).unwrap_or(self),
            other => other,
        }
    }
}

/// Names and how each is answered. Keys are in lower case, without the final dot; `*.zone` covers all names below it.
#[derive(Clone, Debug, Default)]
pub struct Table(BTreeMap<String, Answer>);

impl Table {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a name.
    #[must_use]
    pub fn with(mut self, name: &str, answer: Answer) -> Self {
        self.set(name, answer);
        self
    }

    /// Adds or replaces a name.
    pub fn set(&mut self, name: &str, answer: Answer) {
        self.0.insert(normal(name), answer);
    }

    /// Takes a name out.
    pub fn remove(&mut self, name: &str) {
        self.0.remove(&normal(name));
    }

    /// The answer for a name: its own, or that of the nearest `*.zone`.
    pub fn find(&self, name: &str) -> Option<&Answer> {
        let name = normal(name);
        if let Some(answer) = self.0.get(&name) {
            return Some(answer);
        }
        let mut rest = name.as_str();
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(answer) = self.0.get(&format!("*.{parent}")) {
                return Some(answer);
            }
            rest = parent;
        }
        None
    }
}

fn normal(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// What to do with one question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Send these bytes.
    Send(Vec<u8>),
    /// Send nothing; over TCP, close.
    Silence,
    /// Ask the upstream.
    Forward,
}

/// Decides the reply to a question that was read from `transport` and had been asked `before` so often.
pub(super) fn reply(
    table: &Table,
    query: &Message,
    (transport, before): (Transport, usize),
    upstream: bool,
) -> Reply {
    let Some(question) = query.queries.first() else {
        return Reply::Send(empty(query, ResponseCode::FormErr));
    };
    let name = normal(&question.name().to_ascii());
    let local = ["test", "invalid"]
        .iter()
        .any(|zone| name == *zone || name.ends_with(&format!(".{zone}")));
    let fallback = if upstream && !local {
        Answer::Forward
    } else {
        Answer::NxDomain
    };
    let answer = table.find(&name).unwrap_or(&fallback).after(before);
    match (answer, transport) {
        (Answer::Forward, _) if upstream => Reply::Forward,
        (Answer::NxDomain | Answer::Forward | Answer::InTurn(_), _) => {
            Reply::Send(empty(query, ResponseCode::NXDomain))
        }
        (Answer::ServFail, _) => Reply::Send(empty(query, ResponseCode::ServFail)),
        (Answer::Refused, _) => Reply::Send(empty(query, ResponseCode::Refused)),
        (Answer::Empty, _) => Reply::Send(empty(query, ResponseCode::NoError)),
        (Answer::Timeout, _) | (Answer::TruncatedForGood, Transport::Tcp) => Reply::Silence,
        (Answer::Garbage, _) => Reply::Send(b"this is not a DNS message".to_vec()),
        (Answer::Truncated(_) | Answer::TruncatedForGood, Transport::Udp) => {
            let mut message = response(query, ResponseCode::NoError);
            message.metadata.truncation = true;
            Reply::Send(encode(&message))
        }
        (Answer::Addresses(addresses) | Answer::Truncated(addresses), _) => {
            Reply::Send(found(query, addresses))
        }
    }
}

fn response(query: &Message, code: ResponseCode) -> Message {
    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.metadata = Metadata::response_from_request(&query.metadata);
    message.metadata.message_type = MessageType::Response;
    message.metadata.recursion_available = true;
    message.metadata.response_code = code;
    message.queries.clone_from(&query.queries);
    message
}

fn empty(query: &Message, code: ResponseCode) -> Vec<u8> {
    encode(&response(query, code))
}

fn found(query: &Message, addresses: &[IpAddr]) -> Vec<u8> {
    let mut message = response(query, ResponseCode::NoError);
    let question = &query.queries[0];
    for address in addresses {
        let data = match (question.query_type(), address) {
            (RecordType::A, IpAddr::V4(address)) => RData::A(A(*address)),
            (RecordType::AAAA, IpAddr::V6(address)) => RData::AAAA(AAAA(*address)),
            _ => continue,
        };
        message
            .answers
            .push(Record::from_rdata(question.name().clone(), 1, data));
    }
    encode(&message)
}

fn encode(message: &Message) -> Vec<u8> {
    message
        .to_vec()
        .expect("a response to a question that was read can be written")
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Query;
    use hickory_proto::rr::Name;

    use super::*;

    fn ask(
        table: &Table,
        name: &str,
        kind: RecordType,
        transport: Transport,
        upstream: bool,
    ) -> Reply {
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        reply(table, &query, (transport, 0), upstream)
    }

    fn read(reply: Reply) -> Message {
        match reply {
            Reply::Send(bytes) => Message::from_vec(&bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_table_decides() {
        let four: IpAddr = "127.0.0.1".parse().unwrap();
        let table = Table::new()
            .with("good.test", Answer::Addresses(vec![four]))
            .with("*.wild.test", Answer::Refused)
            .with("fail.test", Answer::ServFail)
            .with("big.test", Answer::Truncated(vec![four]))
            .with("quiet.test", Answer::Timeout);
        let udp = |name: &str, kind| ask(&table, name, kind, Transport::Udp, false);
        let good = read(udp("GOOD.test.", RecordType::A));
        assert_eq!(good.answers.len(), 1);
        assert_eq!(read(udp("good.test.", RecordType::AAAA)).answers.len(), 0);
        assert_eq!(
            read(udp("a.b.wild.test.", RecordType::A))
                .metadata
                .response_code,
            ResponseCode::Refused
        );
        assert_eq!(
            read(udp("fail.test.", RecordType::A))
                .metadata
                .response_code,
            ResponseCode::ServFail
        );
        assert_eq!(
            read(udp("none.test.", RecordType::A))
                .metadata
                .response_code,
            ResponseCode::NXDomain
        );
        assert!(read(udp("big.test.", RecordType::A)).metadata.truncation);
        assert_eq!(
            read(ask(
                &table,
                "big.test.",
                RecordType::A,
                Transport::Tcp,
                false
            ))
            .answers
            .len(),
            1
        );
        assert_eq!(udp("quiet.test.", RecordType::A), Reply::Silence);
    }

    #[test]
    fn only_other_zones_are_forwarded() {
        let table = Table::new();
        assert_eq!(
            ask(&table, "example.com.", RecordType::A, Transport::Udp, true),
            Reply::Forward
        );
        let here = read(ask(
            &table,
            "x.invalid.",
            RecordType::A,
            Transport::Udp,
            true,
        ));
        assert_eq!(here.metadata.response_code, ResponseCode::NXDomain);
        let alone = read(ask(
            &table,
            "example.com.",
            RecordType::A,
            Transport::Udp,
            false,
        ));
        assert_eq!(alone.metadata.response_code, ResponseCode::NXDomain);
    }
}
