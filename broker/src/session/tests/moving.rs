//! What of a session travels together.

use super::{
    super::journal::{Profile, Since},
    *,
};
use crate::session::Place;

const BYTES: usize = 1000;

fn profile() -> Profile {
    Profile {
        client_id: "c".into(),
        user: None,
        is_assigned: false,
        grants: None,
        since: Since::default(),
    }
}

/// Has so many bytes wait for the session's client.
fn deliver(scene: &mut Scene, bytes: usize) {
    let message = Message {
        payload: vec![0; bytes].into(),
        ..Message::clone(&message('a', AtLeastOnce))
    };
    let grant = grant(AtLeastOnce);
    let nobody = None::<&mut Peer>;
    scene
        .session
        .deliver(&Arc::new(message), grant, nobody, scene.now);
}

/// How long the messages of each piece are.
fn pieces(scene: &Scene) -> Vec<Vec<usize>> {
    let mut place = Place::Start;
    let mut pieces = Vec::new();
    while place != Place::End {
        let (portion, next) = scene.session.portion(profile(), &place, BYTES);
        let messages = portion.messages.iter();
        let lengths = messages.map(|message| message.content.as_ref().unwrap().0.payload.len());
        pieces.push(lengths.collect());
        place = next;
    }
    pieces
}

#[test]
fn message_that_is_longer_than_a_piece_travels_alone() {
    let mut scene = Scene::persistent(0, 10);
    scene.session.detach(Cause::Broken, scene.now);
    for bytes in [100, 5000, 5000, 100, 100] {
        deliver(&mut scene, bytes);
    }
    let expected = [vec![100], vec![5000], vec![5000], vec![100, 100]];
    assert_eq!(pieces(&scene), expected);
}

#[test]
fn first_message_does_not_travel_with_what_leaves_no_room_for_it() {
    let long = Will {
        message: message('w', AtMostOnce),
        expiry: None,
        delay: 60,
    };
    let long = Will {
        message: Arc::new(Message {
            payload: vec![0; 5000].into(),
            ..Message::clone(&long.message)
        }),
        ..long
    };
    let mut scene = Scene::new(0, 10, HOUR, Some(long));
    scene.session.detach(Cause::Broken, scene.now);
    deliver(&mut scene, 100);
    assert_eq!(pieces(&scene), [vec![], vec![100]]);
}
