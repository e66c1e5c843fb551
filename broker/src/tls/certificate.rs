//! The two facts of an X.509 certificate (RFC 5280, 4.1) that rustls checks and does not tell.
//!
//! ```text
//! Certificate ::= SEQUENCE { tbsCertificate SEQUENCE {
//!     [0] version, serialNumber, signature, issuer, validity SEQUENCE { notBefore, notAfter },
//!     subject SEQUENCE OF SET OF SEQUENCE { type OID, value }, ... }, ... }
//! ```

use std::str;

const OID: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;

/// id-at-commonName, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 4, 3];

/// The subject's common name, if it has exactly one that is text.
pub(super) fn common_name(certificate: &[u8]) -> Option<String> {
    let (_validity, mut subject) = validity_and_subject(certificate)?;
    let mut found = None;
    while !subject.is_empty() {
        let mut attributes = subject.take(SET)?;
        while !attributes.is_empty() {
            let mut attribute = attributes.take(SEQUENCE)?;
            if attribute.take(OID)?.0 != COMMON_NAME {
                continue;
            }
            let Element { tag, content } = attribute.next()?;
            let is_text = matches!(tag, UTF8_STRING | PRINTABLE_STRING | IA5_STRING);
            let name = is_text.then(|| str::from_utf8(content.0).ok())??;
            if found.replace(name).is_some() || name.contains('\0') {
                return None;
            }
        }
    }
    found.map(str::to_owned)
}

/// The last second at which the certificate is good, in Unix time.
pub(super) fn not_after(certificate: &[u8]) -> Option<u64> {
    let (mut validity, _subject) = validity_and_subject(certificate)?;
    validity.next()?;
    let Element { tag, content } = validity.next()?;
    // Both end with Z and have seconds (4.1.2.5).
    let digits = content.0.strip_suffix(b"Z")?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = number(digits, 2)?;
            (year + if year < 50 { 2000 } else { 1900 }, rest)
        }
        GENERALIZED_TIME => number(digits, 4)?,
        _ => return None,
    };
    let (month, rest) = number(rest, 2)?;
    let (day, rest) = number(rest, 2)?;
    let (hour, rest) = number(rest, 2)?;
    let (minute, rest) = number(rest, 2)?;
    let (second, rest) = number(rest, 2)?;
    let is_date = (1..=12).contains(&month) && (1..=31).contains(&day) && rest.is_empty();
    let days = days_since_epoch(year, month, day);
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    is_date.then(|| u64::try_from(seconds).ok())?
}

fn validity_and_subject(certificate: &[u8]) -> Option<(Der<'_>, Der<'_>)> {
    let mut fields = Der(certificate).take(SEQUENCE)?.take(SEQUENCE)?;
    // Absent means version 1.
    if fields.0.first() == Some(&VERSION) {
        fields.next()?;
    }
    let _serial_number = fields.next()?;
    let _signature = fields.take(SEQUENCE)?;
    let _issuer = fields.take(SEQUENCE)?;
    Some((fields.take(SEQUENCE)?, fields.take(SEQUENCE)?))
}

/// What is left of a run of DER elements.
#[derive(Clone, Copy)]
struct Der<'a>(&'a [u8]);

struct Element<'a> {
    tag: u8,
    content: Der<'a>,
}

impl<'a> Der<'a> {
    fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    fn next(&mut self) -> Option<Element<'a>> {
        let (&[tag, length], rest) = self.0.split_first_chunk()?;
        let (length, rest) = match length {
            0..=0x7f => (usize::from(length), rest),
            // No certificate is longer than what three bytes tell.
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
                let length = bytes
                    .iter()
                    .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
                (length, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(Element {
            tag,
            content: Der(content),
        })
    }

    fn take(&mut self, tag: u8) -> Option<Self> {
        let element = self.next()?;
        (element.tag == tag).then_some(element.content)
    }
}

fn number(digits: &[u8], length: usize) -> Option<(i64, &[u8])> {
    let (digits, rest) = digits.split_at_checked(length)?;
    let is_number = digits.iter().all(u8::is_ascii_digit);
    let number = str::from_utf8(digits).ok()?.parse().ok()?;
    is_number.then_some((number, rest))
}

/// Days from 1970-01-01 in the Gregorian calendar.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March have their leap day last.
    let year = if month > 2 { year } else { year - 1 };
    let months = (month + 9) % 12;
    let leap_days = year / 4 - year / 100 + year / 400;
    365 * year + leap_days + (153 * months + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::any, proptest};
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(adjust: impl Fn(&mut CertificateParams)) -> Vec<u8> {
        let mut parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        adjust(&mut parameters);
        let key = KeyPair::generate().unwrap();
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn common_name_is_found_among_other_names() {
        let named = certificate(|parameters| {
            let names = &mut parameters.distinguished_name;
            names.push(DnType::OrganizationName, "a".repeat(300));
            names.push(DnType::CommonName, "dëvice-1");
            names.push(DnType::CountryName, "DE");
        });
        assert_eq!(common_name(&named).as_deref(), Some("dëvice-1"));
        let nameless = certificate(|parameters| {
            parameters
                .distinguished_name
                .push(DnType::OrganizationName, "a");
        });
        assert_eq!(common_name(&nameless), None);
    }

    #[test]
    fn subject_with_two_common_names_has_none() {
        let attribute = |name: &[u8]| {
            let mut value = vec![OID, 3, 0x55, 4, 3, UTF8_STRING, name.len() as u8];
            value.extend(name);
            element(SET, &element(SEQUENCE, &value))
        };
        let one = with_subject(&attribute(b"a"));
        assert_eq!(common_name(&one).as_deref(), Some("a"));
        let two = with_subject(&[attribute(b"a"), attribute(b"b")].concat());
        assert_eq!(common_name(&two), None);
        let cut = with_subject(&attribute(b"a\0b"));
        assert_eq!(common_name(&cut), None);
    }

    fn with_subject(attributes: &[u8]) -> Vec<u8> {
        let empty = element(SEQUENCE, &[]);
        let subject = element(SEQUENCE, attributes);
        let fields = [vec![2, 1, 1], empty.repeat(3), subject].concat();
        element(SEQUENCE, &element(SEQUENCE, &fields))
    }

    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut element = vec![tag, u8::try_from(content.len()).unwrap()];
        element.extend(content);
        element
    }

    #[test]
    fn end_of_validity_is_read_in_both_forms() {
        let until = |year, month, day| {
            let certificate = certificate(|parameters| {
                parameters.not_after = date_time_ymd(year, month, day);
            });
            not_after(&certificate)
        };
        assert_eq!(until(2000, 2, 29), Some(951_782_400));
        assert_eq!(until(2026, 11, 28), Some(1_795_824_000));
        // From 2050 on years have four digits.
        assert_eq!(until(2100, 3, 1), Some(4_107_542_400));
    }

    proptest! {
        #[test]
        fn damaged_certificates_are_no_harm(at in any::<proptest::sample::Index>(), byte: u8) {
            let mut bytes = with_subject(&element(SET, &element(SEQUENCE, &[OID, 3, 0x55, 4, 3])));
            let at = at.index(bytes.len());
            bytes[at] = byte;
            common_name(&bytes);
            not_after(&bytes[at..]);
            not_after(&bytes);
        }
    }
}
