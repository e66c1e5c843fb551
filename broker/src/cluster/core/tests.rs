//! One node, and a peer that behaves badly.

mod asides;
mod members;
mod retained;

use std::net::Ipv4Addr;

use super::*;
use crate::{
    cluster::{
        pair::WINDOW,
        peer::CHANGE_ROOM,
        promises::Safe,
        wire::{Member, Page, Resume},
    },
    lanes::frame::{HEADER, Writer},
    replica::word::Word,
    routes::ShardId,
};

const LEASE: Duration = Duration::from_secs(2);
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

struct One {
    core: Core,
    table: Table,
    now: Instant,
    link: u64,
    /// The name of who calls.
    peer: String,
}

impl One {
    fn new() -> Self {
        let me = Me {
            cluster: "c".into(),
            node: "one".into(),
            incarnation: 1,
            port: 7883,
        };
        let now = Instant::now();
        Self {
            core: Core::new(me, Acknowledge::Replicated, LEASE, &[], now),
            table: Table::default(),
            now,
            link: 0,
            peer: "two".to_owned(),
        }
    }

    fn hear(&mut self, message: &Message) {
        let link = LinkId(self.link);
        self.core.handle_message(link, message.encode(), self.now);
    }

    /// The peer calls, and has heard this of the node's stream.
    fn meet(&mut self, heard: Option<(u64, u64)>) {
        self.meet_with(1, heard);
    }

    /// As [`One::meet`]; the peer's stream is this one.
    fn meet_with(&mut self, stream: u64, heard: Option<(u64, u64)>) {
        self.be_called(2000);
        self.hear(&Message::Resume(Resume {
            stream,
            heard,
            is_choked: false,
            wants_retained: false,
            time: 0,
        }));
    }

    /// The peer calls and greets.
    fn be_called(&mut self, lease_millis: u32) {
        self.link += 1;
        let link = LinkId(self.link);
        self.core.handle_connected(link, None, HOST, self.now);
        self.hear(&Message::Hello(Hello {
            cluster: "c".into(),
            node: self.peer.clone(),
            incarnation: 1,
            port: 7884,
            lease_millis,
        }));
    }

    /// What the node says meanwhile.
    fn said(&mut self, time: Duration) -> Vec<Message> {
        let actions = self.wait(time).into_iter();
        let sent = actions.filter_map(|action| {
            let Action::Send(_link, bytes) = action else {
                return None;
            };
            Message::decode(bytes).ok()
        });
        sent.collect()
    }

    fn is_alive(&self) -> bool {
        self.core.peers["two"].is_alive()
    }

    /// Has the peer take the copy of the filters, which is first.
    fn take_copy(&mut self) {
        self.wait(Duration::ZERO);
        self.hear(&Message::Taken(1));
    }

    fn stream(&self) -> u64 {
        self.core.peers["two"].out.stream()
    }

    /// Time goes by; the result is what there is to do.
    fn wait(&mut self, time: Duration) -> Vec<Action> {
        self.now += time;
        self.core.handle_timeout(self.now);
        self.core.pump(&mut self.table, self.now);
        std::iter::from_fn(|| self.core.poll_action()).collect()
    }

    fn is_met(&self) -> bool {
        self.core.peers["two"].link.is_some()
    }
}

#[test]
fn who_sends_a_long_message_is_not_silent() {
    let mut one = One::new();
    one.meet(None);
    one.take_copy();
    for _ in 0..20 {
        one.wait(LEASE / 4);
        one.core.handle_part(LinkId(one.link), one.now);
    }
    assert!(one.is_met() && one.core.peers["two"].is_alive());
    one.wait(LEASE / 2 + Duration::from_millis(1));
    assert!(!one.is_met());
}

#[test]
fn stranger_who_sends_bytes_and_says_nothing_is_not_listened_to_for_ever() {
    let mut one = One::new();
    one.core.handle_connected(LinkId(1), None, HOST, one.now);
    for _ in 0..5 {
        one.wait(LEASE / 4);
        one.core.handle_part(LinkId(1), one.now);
    }
    assert!(one.core.links.is_empty());
}

#[test]
fn peer_that_fails_at_one_item_each_time_is_held_for_gone() {
    let mut one = One::new();
    one.meet(None);
    one.take_copy();
    let slot = one.core.peers["two"].slot;
    let frame = FrameId {
        from: ShardId(0),
        sequence: 1,
    };
    let messages = Bytes::from_static(b"poison");
    one.core.handle_frame(slot, Some(frame), messages, one.now);
    let stream = one.stream();
    let mut actions = Vec::new();
    for _ in 0..10 {
        one.core.handle_closed(
            LinkId(one.link),
            Some("it says what makes no sense"),
            one.now,
        );
        one.meet(Some((stream, 1)));
        actions.extend(one.wait(LEASE / 4));
    }
    let lost = Action::Note(Notice::Lost {
        node: "two".into(),
        loss: Loss::Stuck,
    });
    assert!(actions.contains(&lost));
    let gone = Action::Orphan {
        slot,
        frame,
        messages: Bytes::from_static(b"poison"),
    };
    assert!(actions.contains(&gone));
    // What was behind it goes on.
    assert!(one.core.peers["two"].is_alive());
}

#[test]
fn frame_whose_steps_are_for_an_earlier_life_is_told_of_as_taken() {
    let mut one = One::new();
    one.meet(None);
    one.take_copy();
    let slot = one.core.peers["two"].slot;
    let from = ShardId(0);
    let frame = FrameId { from, sequence: 1 };
    let life = one.stream() + 1;
    let mut writer = Writer::new(from, 1);
    let piece = b"piece";
    writer.push_word(&Word::Steps { life, piece }.encode(), true);
    let messages = writer.finish().slice(HEADER..);
    one.core.handle_frame(slot, Some(frame), messages, one.now);
    let has_piece = |bytes: &Bytes| bytes.windows(piece.len()).any(|part| part == piece);
    let is_told = |action: &Action| matches!(action, Action::Send(_, bytes) if has_piece(bytes));
    assert!(!one.wait(Duration::ZERO).iter().any(is_told));
    one.hear(&Message::Taken(2));
    let level = Level::Taken;
    let taken = Action::Confirm { slot, frame, level };
    assert!(one.wait(Duration::ZERO).contains(&taken));
}

#[test]
fn peer_that_has_more_than_it_was_sent_is_not_believed() {
    let mut one = One::new();
    one.meet(None);
    one.take_copy();
    one.hear(&Message::Safe(Safe::up_to(1)));
    assert!(one.is_met());
    one.hear(&Message::Safe(Safe::up_to(2)));
    assert!(!one.is_met());
}

#[test]
fn what_was_said_of_a_peer_that_has_left_is_not_held_for_what_it_sends_later() {
    let mut one = One::new();
    let mut epochs = Vec::new();
    for _ in 0..2 {
        one.meet(None);
        one.hear(&Message::Item(1, Item::Messages(Bytes::from_static(b"m"))));
        for action in one.wait(Duration::ZERO) {
            if let Action::Deliver { slot, epoch, .. } = action {
                epochs.push((slot, epoch));
            }
        }
        one.hear(&Message::Farewell(Parting::Stops));
    }
    assert!(epochs.len() == 2 && epochs[0] != epochs[1], "{epochs:?}");
}

#[test]
fn peer_that_had_held_this_node_for_gone_has_no_copies_of_its_sessions() {
    let mut one = One::new();
    one.meet_with(1, None);
    one.take_copy();
    let (slot, stream) = (one.core.peers["two"].slot, one.stream());
    let forsaken = Action::Forsaken { slot };
    let life = |one: &One| one.core.peers["two"].life;
    let before = life(&one);
    // Over another connection all goes on.
    one.meet_with(1, Some((stream, 1)));
    assert!(!one.wait(Duration::ZERO).contains(&forsaken));
    assert_eq!(life(&one), before);
    one.meet_with(2, Some((stream, 1)));
    assert!(one.wait(Duration::ZERO).contains(&forsaken));
    assert!(one.is_alive() && life(&one) > before);
    // What it was sent it may have all the same.
    assert_eq!(one.stream(), stream);
}

#[test]
fn copies_are_not_there_before_they_are_taken_however_little_publishers_wait_for() {
    let mut one = One::new();
    one.core.acknowledge = Acknowledge::Local;
    one.meet(None);
    one.take_copy();
    let slot = one.core.peers["two"].slot;
    let from = ShardId(0);
    let told = |one: &mut One| -> Vec<_> {
        let actions = one.wait(Duration::ZERO).into_iter();
        let told = actions.filter_map(|action| {
            let Action::Confirm { frame, level, .. } = action else {
                return None;
            };
            Some((frame.sequence, level))
        });
        told.collect()
    };
    for sequence in 1..=2 {
        let frame = FrameId { from, sequence };
        let mut writer = Writer::new(from, sequence);
        let (life, piece) = (one.core.peers["two"].life, b"piece");
        writer.push_word(&Word::Steps { life, piece }.encode(), true);
        let messages = writer.finish().slice(HEADER..);
        one.core.handle_frame(slot, Some(frame), messages, one.now);
    }
    assert_eq!(told(&mut one), [(1, Level::Passed), (2, Level::Passed)]);
    one.hear(&Message::Taken(2));
    assert_eq!(told(&mut one), [(1, Level::Taken)]);
    // Nobody waits for ever.
    one.hear(&Message::Farewell(Parting::Stops));
    assert_eq!(told(&mut one), [(2, Level::Taken)]);
}

fn message() -> Item {
    Item::Messages(Bytes::from_static(b"m"))
}

#[test]
fn new_stream_waits_while_what_came_before_does_not_move() {
    let mut one = One::new();
    one.meet_with(1, None);
    one.hear(&Message::Item(1, message()));
    // The peer holds this node for stuck, and calls again.
    let later = 2 * LEASE;
    for _ in 0..8 {
        one.wait(later / 8);
        one.hear(&Message::Taken(0));
    }
    one.meet_with(2, None);
    assert!(!one.is_met() && !one.is_alive());
    let actions = one.wait(Duration::ZERO);
    let refusal = Message::Refusal(Refusal::Choked).encode();
    assert!(actions.contains(&Action::Send(LinkId(one.link), refusal)));
    // Its sessions are its own: it is this node that has not kept up.
    let slot = one.core.peers["two"].slot;
    let (node, fate) = ("two".into(), Fate::Apart);
    assert!(actions.contains(&Action::Bury { slot, node, fate }));
    // The stream that it knows would go on.
    one.meet_with(1, None);
    assert!(one.is_met() && one.is_alive());
    let (slot, epoch) = (
        one.core.peers["two"].slot,
        one.core.peers["two"].inc.epoch(),
    );
    one.core.handle_delivered(slot, epoch, 1, one.now);
    one.meet_with(2, None);
    assert!(one.is_met() && one.is_alive());
}

#[test]
fn peer_that_cannot_take_a_new_stream_is_not_alive() {
    let mut one = One::new();
    one.be_called(2000);
    one.hear(&Message::Resume(Resume {
        stream: 1,
        heard: None,
        is_choked: true,
        wants_retained: false,
        time: 0,
    }));
    assert!(!one.is_alive());
    one.hear(&Message::Refusal(Refusal::Choked));
    assert!(!one.is_met());
    one.meet(None);
    assert!(one.is_alive());
}

#[test]
fn peer_that_sends_more_than_was_agreed_is_not_listened_to() {
    let mut one = One::new();
    one.meet(None);
    let much = Item::Messages(vec![0; WINDOW].into());
    one.hear(&Message::Item(1, much.clone()));
    assert!(one.is_met());
    one.hear(&Message::Item(2, much));
    assert!(!one.is_met());
    one.meet(None);
    let member = |node: &str| Member {
        node: node.to_owned(),
        host: HOST,
        port: 1,
    };
    one.hear(&Message::Members(vec![member("three")]));
    assert!(one.is_met());
    one.hear(&Message::Members(vec![member(&"x".repeat(65))]));
    assert!(!one.is_met());
    // What was refused was not received: another item may have its number, and may be refused too.
    let changes = |filter: &str| Item::Changes(vec![Change::Added(filter.into())]);
    let page = |filter: &str| {
        Item::Page(Page {
            after: None,
            filters: vec![(filter.into(), None)],
            is_last: true,
        })
    };
    let long = "x".repeat(70_000);
    for (number, illegal, legal) in [
        (2, changes(&long), changes("t")),
        (3, page(&long), page("t")),
        (4, changes("t/#/t"), changes("t/#")),
    ] {
        one.meet(None);
        one.hear(&Message::Item(number, illegal));
        assert!(!one.is_met());
        one.meet(None);
        one.hear(&Message::Item(number, legal));
        assert!(one.is_met());
    }
}

#[test]
fn peer_that_does_not_keep_up_with_changes_is_sent_a_copy() {
    let mut one = One::new();
    one.meet(None);
    one.take_copy();
    assert_eq!(one.core.known(), one.table.version());
    let long = "x".repeat(500);
    let mut said = Vec::new();
    for number in 0..1000 {
        one.table.add(&format!("{number}/{long}"));
        one.table.remove(&format!("{number}/{long}"));
        said.extend(one.said(Duration::ZERO));
    }
    one.table.add("t/1");
    said.extend(one.said(Duration::ZERO));
    assert!(one.core.peers["two"].out.bytes() < 2 * CHANGE_ROOM);
    let mut theirs = crate::cluster::routes::Remote::default();
    let mut taken = 1;
    while one.core.known() < one.table.version() {
        for message in said {
            if let Message::Item(number, item) = message {
                match item {
                    Item::Changes(changes) => drop(theirs.handle_changes(changes)),
                    Item::Page(page) => drop(theirs.handle_page(page)),
                    Item::Messages(_) | Item::Retained { .. } | Item::Sums(..) => {}
                }
                taken = number;
            }
        }
        one.hear(&Message::Taken(taken));
        said = one.said(Duration::ZERO);
    }
    assert!(theirs.iter().eq([Change::Added("t/1".into())]));
}

#[test]
fn what_is_to_follow_the_filters_waits_for_a_copy_of_them() {
    let mut one = One::new();
    one.meet(None);
    let long = "x".repeat(500);
    for number in 0..200 {
        one.table.add(&format!("{number}/{long}"));
    }
    let slot = one.core.peers["two"].slot;
    let word = Bytes::from_static(b"word");
    one.core.handle_behind_filters(slot, word.clone(), one.now);
    let (mut is_whole, mut has_word) = (false, false);
    while !has_word {
        let mut taken = None;
        for message in one.said(Duration::ZERO) {
            let Message::Item(number, item) = message else {
                continue;
            };
            taken = Some(number);
            match item {
                Item::Page(page) => is_whole = page.is_last,
                Item::Messages(messages) => has_word = messages == word,
                Item::Changes(_) | Item::Retained { .. } | Item::Sums(..) => {}
            }
            assert!(is_whole || !has_word);
        }
        one.hear(&Message::Taken(taken.unwrap()));
    }
    // There is nothing to wait for.
    one.core.handle_behind_filters(slot, word.clone(), one.now);
    let said = one.said(Duration::ZERO);
    let is_word = |message: &Message| {
        let Message::Item(_number, item) = message else {
            return false;
        };
        *item == Item::Messages(word.clone())
    };
    assert!(said.iter().any(is_word));
}
