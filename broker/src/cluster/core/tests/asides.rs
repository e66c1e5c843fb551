//! What is said beside the streams.

use super::*;
use crate::cluster::questions::Question;

#[test]
fn asides_go_to_who_is_there_and_come_out_as_they_were_said() {
    let mut one = One::new();
    let aside = || Aside::Question(Question::Status);
    let question = Message::Aside(7, aside());
    assert_eq!(one.core.say_aside("two", &question), None);
    one.meet(None);
    one.take_copy();
    one.wait(Duration::ZERO);
    let link = LinkId(one.link);
    assert_eq!(one.core.say_aside("two", &question), Some(link));
    one.hear(&question);
    let actions = one.wait(Duration::ZERO);
    assert!(actions.contains(&Action::Send(link, question.encode())));
    assert!(actions.contains(&Action::Aside(link, 7, aside())));
    one.core.handle_closed(link, None, one.now);
    assert!(!one.core.answer(link, question.encode()));
    assert_eq!(one.core.say_aside("two", &question), None);
}
