use super::*;
use crate::{
    access::Identity,
    cluster::{
        claims::{Fellow, Stamp, Terms},
        word::Word as ClusterWord,
    },
    codec::packet::{Connect, Version, Will},
    lanes::{Confirmation, Level, frame::Writer as FrameWriter},
    link::Link,
    peer::Peer,
    replica::{
        Step,
        place::{self, Place},
        wire::{Whose, Writer},
    },
    session::{
        Cause, Grant, RestoredMessage, Subscription,
        journal::{Profile, Progress, Seq, SessionId, Since, State},
    },
    shard::{Shared, frames::Frame, testing::CLUSTER},
};

mod lives;

/// Of the lane of another node.
const END: ShardId = ShardId(1);

const THIRD: ShardId = ShardId(2);

const SUBSCRIPTION: Subscription = Subscription {
    qos: Qos::AtLeastOnce,
    no_local: false,
    retain_as_published: false,
    id: None,
};

/// A shard of a node of a cluster, with copies of another node's sessions.
struct Scene {
    shard: Shard,
    now: Instant,
    /// Of the other node's sessions.
    numbered: u64,
    life: u64,
}

fn message(topic: &str, number: u64) -> Message {
    Message {
        topic: topic.into(),
        payload: [].into(),
        properties: [].into(),
        qos: Qos::AtLeastOnce,
        retain: false,
        expires: None,
        id: MessageId { run: 7, number },
    }
}

fn taken(number: u64) -> Step {
    let grant = Grant {
        qos: Qos::AtLeastOnce,
        retain: false,
        subscription_ids: Vec::new(),
        share: None,
    };
    Step::Taken(RestoredMessage {
        seq: Seq(number),
        progress: Progress::Waiting,
        content: Some((Arc::new(message("t", number)), grant)),
        group: None,
    })
}

fn will(delay: u32) -> Will {
    Will {
        message: Arc::new(message("will", 0)),
        expiry: None,
        delay,
    }
}

impl Scene {
    fn new() -> Self {
        Self {
            shard: Shard::new(ShardId(0), Shared::for_tests(CLUSTER, 1), Arc::default()),
            now: Instant::now(),
            numbered: 0,
            life: 1,
        }
    }

    fn hear(&mut self, word: Word<'_>) {
        let needs = &mut Needs::default();
        self.shard.handle_word(END, &word.encode(), needs, self.now);
        while self.promote_some() {}
    }

    fn promote_some(&mut self) -> bool {
        let work = self.shard.begin_work();
        self.shard.promote_some(END, work, self.now)
    }

    fn say(&mut self, whose: Whose, steps: &[Step]) {
        let mut writer = Writer::new(self.now);
        steps.iter().for_each(|step| writer.push_of(whose, step));
        let (life, piece) = (self.life, &writer.take());
        self.hear(Word::Steps { life, piece });
    }

    /// All of a session is told of, with these of its messages.
    fn tell_all(&mut self, whose: Whose, state: State, numbers: &[u64]) {
        let subscribed = Step::Subscribed("t".into(), SUBSCRIPTION);
        let mut steps = vec![Step::Whole, Step::State(state), subscribed];
        steps.extend(numbers.iter().map(|number| taken(*number)));
        self.say(whose, &steps);
    }

    /// What was told of another node's session.
    fn state_of(&self, whose: Whose) -> State {
        let shadow = &self.shard.shadows.owners[&END].shadows[&whose];
        shadow.state().cloned().unwrap()
    }

    /// Another node's client has connected, and has subscribed to `t`.
    fn copy(&mut self, client_id: &str, will: Option<Will>) -> Whose {
        self.numbered += 1;
        let whose = Whose {
            client: hash_of(client_id),
            session: SessionId(self.numbered),
        };
        let profile = Profile {
            client_id: client_id.into(),
            user: None,
            is_assigned: false,
            grants: None,
            since: Since::default(),
        };
        let state = State {
            profile: Arc::new(profile),
            expiry: Duration::from_secs(60),
            ends: None,
            will,
            will_due: None,
        };
        let subscribed = Step::Subscribed("t".into(), SUBSCRIPTION);
        self.say(whose, &[Step::Whole, Step::State(state), subscribed]);
        whose
    }

    fn lose(&mut self) {
        self.hear(Word::Lost(Fate::Promoted));
    }

    /// The other node was sent these messages to `t`, and may not have had them.
    fn orphan(&mut self, numbers: &[u64]) {
        let mut frame = FrameWriter::new(END, 1);
        for number in numbers {
            frame.push(&message("t", *number), &[], self.now);
        }
        self.hear(Word::Orphans {
            of: END,
            messages: &frame.finish()[frame::HEADER..],
        });
    }

    fn connect(&mut self, client_id: &str) -> (SessionKey, std::rc::Rc<Link>) {
        let connect = Connect {
            clean_start: false,
            ..Connect::for_tests(Version::V311, client_id)
        };
        let counters = Arc::clone(self.shard.counters());
        let link = Link::new(Peer::for_tests(), &connect, self.shard.limits(), counters);
        let owner = Identity::ANONYMOUS;
        let key = self.shard.connect(connect, owner, None, &link, self.now);
        (key.unwrap(), link)
    }

    /// A session of this node whose client is away.
    fn leave(&mut self, client_id: &str, filter: &str) -> SessionKey {
        let (key, link) = self.connect(client_id);
        let entry = self.shard.sessions.get_mut(key).unwrap();
        entry.session.subscribe(filter, SUBSCRIPTION);
        self.shard.add_subscriber(key, filter, SUBSCRIPTION);
        self.shard.disconnect(key, &link, Cause::Broken, self.now);
        key
    }

    /// A client has connected to a third node.
    fn claim(&mut self, client_id: &str, is_bereft: bool) {
        self.claim_on(client_id, is_bereft, false);
    }

    fn claim_on(&mut self, client_id: &str, is_bereft: bool, clean_start: bool) {
        let stamp = Stamp {
            time: 9,
            node: "third".into(),
        };
        let terms = Terms {
            user: None,
            clean_start,
            is_entitled: true,
            has_session: false,
            is_bereft,
        };
        let word = ClusterWord::Claim {
            client_id,
            stamp,
            terms,
        };
        let needs = &mut Needs::default();
        self.shard
            .handle_word(THIRD, &word.encode(), needs, self.now);
    }

    /// How many frames this shard has sent.
    fn said(&mut self) -> u64 {
        self.shard.outbox.flush();
        self.shard.outbox.frames()
    }

    /// Whether a session is on its way to the third node.
    fn is_leaving(&mut self, client_id: &str) -> bool {
        let key = self.shard.sessions.find(client_id);
        let entry = key.and_then(|key| self.shard.sessions.get_mut(key));
        entry.is_some_and(|entry| entry.goes_to(THIRD))
    }

    fn is_here(&self, client_id: &str) -> bool {
        self.shard.sessions.find(client_id).is_some()
    }

    /// The numbers of messages that a session has.
    fn messages(&mut self, client_id: &str) -> Vec<u64> {
        let key = self.shard.sessions.find(client_id).unwrap();
        let session = &self.shard.sessions.get_mut(key).unwrap().session;
        session.message_ids().iter().map(|id| id.number).collect()
    }
}

#[test]
fn session_that_its_client_took_up_before_its_node_was_heard_to_be_gone_gets_what_that_was_sent() {
    let mut scene = Scene::new();
    let whose = scene.copy("early", None);
    scene.copy("other", None);
    scene.say(whose, &[taken(1), taken(2), Step::Done(Seq(1))]);
    scene.connect("early");
    assert_eq!(scene.messages("early"), [2]);
    // What the node has said of others is still to come.
    assert!(!scene.is_here("other"));
    scene.copy("late", None);
    scene.lose();
    assert!(scene.is_here("other") && scene.is_here("late"));
    scene.orphan(&[1, 2, 3]);
    assert_eq!(scene.messages("early"), [2, 3]);
    assert_eq!(scene.messages("other"), [1, 2, 3]);
    assert_eq!(scene.messages("late"), [1, 2, 3]);
}

#[test]
fn copy_that_is_to_replace_another_is_no_session_before_it_is_complete() {
    let mut scene = Scene::new();
    scene.leave("witness", "will");
    let cluster = scene.shard.shared.cluster.clone().unwrap();
    cluster.meet_for_tests(&[THIRD]);
    let third = u64::from(THIRD.0);
    for (client_id, whole_at, is_complete) in [
        ("partial", third, false),
        ("complete", third, true),
        // The node with the whole one is gone as well.
        ("all that there is", third + 1, false),
    ] {
        let will = (whole_at == third).then(|| will(0));
        let whose = scene.copy(client_id, will);
        let state = scene.state_of(whose);
        scene.say(whose, &[Step::Replacing(whole_at), Step::State(state)]);
        if is_complete {
            scene.say(whose, &[Step::Complete]);
        }
    }
    scene.lose();
    assert!(scene.is_here("complete") && scene.is_here("all that there is"));
    assert!(!scene.is_here("partial"));
    assert_eq!(scene.messages("witness").len(), 1);
}

#[test]
fn session_that_had_gone_to_the_lost_node_comes_back_from_its_copy() {
    let mut scene = Scene::new();
    scene.leave("c", "t");
    scene.leave("d", "t");
    let (end, life) = (END, 1);
    for client_id in ["c", "d"] {
        let key = scene.shard.sessions.find(client_id).unwrap();
        scene.shard.depart(key, Fellow { end, life }, 5, scene.now);
    }
    scene.shard.send_pieces(scene.now);
    // One of them is there, as far as is known here.
    scene
        .shard
        .handle_installed(Fellow { end, life }, "c", 5, scene.now);
    for client_id in ["c", "d"] {
        let whose = scene.copy(client_id, None);
        scene.say(whose, &[taken(1)]);
    }
    scene.lose();
    for client_id in ["c", "d"] {
        let key = scene.shard.sessions.find(client_id).unwrap();
        assert!(!scene.shard.sessions.get_mut(key).unwrap().is_leaving());
        assert_eq!(scene.messages(client_id), [1]);
    }
}

#[test]
fn will_of_a_client_that_comes_at_once_is_published_unless_it_has_a_delay() {
    for (delay, wills) in [(0, 1), (60, 0)] {
        let mut scene = Scene::new();
        scene.leave("witness", "will");
        scene.copy("c", Some(will(delay)));
        scene.connect("c");
        assert_eq!(scene.messages("witness").len(), wills, "{delay}");
        scene.lose();
        assert_eq!(scene.messages("witness").len(), wills, "{delay}");
    }
}

#[test]
fn will_of_a_client_that_is_here_before_its_node_is_gone_is_published_unless_it_has_a_delay() {
    for (delay, wills) in [(0, 1), (60, 0)] {
        let mut scene = Scene::new();
        scene.leave("witness", "will");
        scene.connect("c");
        scene.copy("c", Some(will(delay)));
        scene.lose();
        assert_eq!(scene.messages("witness").len(), wills, "{delay}");
    }
}

#[test]
fn frame_that_is_told_of_as_safe_alone_was_taken_with_its_steps() {
    let mut scene = Scene::new();
    let account = std::rc::Rc::clone(scene.shard.account().unwrap());
    let place = Place { end: END, life: 1 };
    account.set_peers(vec![place::Peer { place, node: 1 }]);
    scene.leave("c", "t");
    account.send_now();
    account.send_words(&mut scene.shard.outbox);
    assert!(!account.is_settled());
    scene.shard.handle_frame_confirmation(Confirmation {
        reader: END,
        sequence: 1,
        level: Level::Safe,
    });
    assert!(account.is_settled());
}

#[test]
fn sessions_of_a_node_with_many_are_made_in_several_turns() {
    const MANY: usize = 5000;
    let mut scene = Scene::new();
    for number in 0..MANY {
        scene.copy(&number.to_string(), None);
    }
    let lost = Word::Lost(Fate::Promoted).encode();
    let needs = &mut Needs::default();
    scene.shard.handle_word(END, &lost, needs, scene.now);
    let mut turns = 0;
    // Clients need not wait for their own, also if the node is back.
    let cluster = scene.shard.shared.cluster.clone().unwrap();
    cluster.meet_for_tests(&[END]);
    let late = (0..MANY).rev().map(|number| number.to_string());
    for client_id in late.take(3) {
        assert!(scene.promote_some());
        turns += 1;
        scene.shard.promote_lost(&client_id, scene.now);
        assert!(scene.is_here(&client_id));
    }
    while scene.promote_some() {
        turns += 1;
    }
    assert!(turns < 1000);
    assert!((0..MANY).all(|number| scene.is_here(&number.to_string())));
    scene.orphan(&[1]);
    assert_eq!(scene.messages("0"), [1]);
}

#[test]
fn what_others_had_sent_a_lost_node_is_for_all_of_its_sessions_and_waits_for_them() {
    const MANY: usize = 5000;
    let mut scene = Scene::new();
    for number in 0..MANY {
        scene.copy(&number.to_string(), None);
    }
    let lost = Word::Lost(Fate::Promoted).encode();
    let needs = &mut Needs::default();
    scene.shard.handle_word(END, &lost, needs, scene.now);
    assert!(scene.promote_some());
    let mut strays = FrameWriter::new(THIRD, 1);
    strays.push(&message("t", 1), &[], scene.now);
    let messages = &strays.finish()[frame::HEADER..];
    let mut frame = FrameWriter::new(THIRD, 2);
    frame.push_word(&Word::Orphans { of: END, messages }.encode(), true);
    let frame = frame.finish();
    let mut frame = Frame::new(THIRD, &frame[frame::HEADER..]);
    let mut turns = 1;
    while scene.shard.take_messages(&mut frame, scene.now) {
        turns += 1;
    }
    while scene.promote_some() {}
    for number in 0..MANY {
        assert_eq!(scene.messages(&number.to_string()), [1], "{number}");
    }
    assert!(turns > 1);
}

#[test]
fn session_of_a_lost_node_goes_from_its_copy_to_where_its_client_has_come() {
    let mut scene = Scene::new();
    let cluster = scene.shard.shared.cluster.clone().unwrap();
    cluster.meet_for_tests(&[END, THIRD]);
    let said = Scene::said;
    scene.copy("asked early", None);
    let ended = scene.copy("ended", None);
    scene.copy("promoted", None);
    // As long as its owner may answer, nobody waits for a copy.
    let before = said(&mut scene);
    scene.claim("asked early", false);
    assert!(said(&mut scene) > before);
    let before = said(&mut scene);
    scene.claim("ended", true);
    scene.claim("promoted", true);
    assert_eq!(said(&mut scene), before);
    scene.say(ended, &[Step::Ended]);
    assert!(said(&mut scene) > before && !scene.is_here("ended"));
    cluster.meet_for_tests(&[THIRD]);
    // Before the loss is heard of on the lane, and then.
    scene.claim("asked early", true);
    assert!(scene.is_leaving("asked early"));
    scene.copy("left", None);
    scene.lose();
    assert!(scene.is_leaving("promoted"));
    // The other one may have let in clients that nobody has claimed here.
    let before = said(&mut scene);
    scene.shard.claim_sessions();
    assert!(said(&mut scene) > before);
}
