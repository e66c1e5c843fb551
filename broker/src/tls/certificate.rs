//! What an X.509 certificate says that rustls checks and does not tell: names and times.

use std::collections::HashSet;

use ring::digest;
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, prelude::FromDer,
    revocation_list::CertificateRevocationList, x509::X509Name,
};

use crate::{access::is_name, config::NamedBy, peer::Issued};

/// When a certificate is good, in seconds of Unix time; both are part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
}

impl Validity {
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let certificate = read(certificate)?;
        let validity = certificate.validity();
        Some(Self {
            // What began before 1970 has begun.
            not_before: u64::try_from(validity.not_before.timestamp()).unwrap_or(0),
            not_after: u64::try_from(validity.not_after.timestamp()).unwrap_or(0),
        })
    }
}

pub(super) fn read(certificate: &[u8]) -> Option<X509Certificate<'_>> {
    let (rest, certificate) = X509Certificate::from_der(certificate).ok()?;
    rest.is_empty().then_some(certificate)
}

pub(super) fn issued(certificate: &X509Certificate<'_>) -> Issued {
    Issued {
        issuer: digest_of(certificate.issuer()),
        serial: certificate.raw_serial().into(),
    }
}

/// The certificates that a list says are good no more; `None` if it cannot be read.
pub(super) fn revoked(list: &[u8]) -> Option<HashSet<Issued>> {
    let (_rest, list) = CertificateRevocationList::from_der(list).ok()?;
    let issuer = digest_of(list.issuer());
    let revoked = list.iter_revoked_certificates().map(|revoked| Issued {
        issuer,
        serial: revoked.raw_serial().into(),
    });
    Some(revoked.collect())
}

pub(super) fn digest_of(name: &X509Name<'_>) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, name.as_raw()).as_ref());
    bytes
}

/// The name of a kind, if the certificate has exactly one. A name is text that one line can hold.
pub(super) fn name<'a>(certificate: &'a X509Certificate<'_>, by: NamedBy) -> Option<&'a str> {
    let name = match by {
        NamedBy::CommonName => common_name(certificate.subject()),
        NamedBy::Email | NamedBy::Dns | NamedBy::Uri => alternative_name(certificate, by),
    };
    name.filter(|name| is_name(name))
}

fn common_name<'a>(subject: &'a X509Name<'_>) -> Option<&'a str> {
    let mut names = subject.iter_common_name();
    match (names.next(), names.next()) {
        (Some(name), None) => name.as_str().ok(),
        _ => None,
    }
}

fn alternative_name<'a>(certificate: &'a X509Certificate<'_>, by: NamedBy) -> Option<&'a str> {
    // Twice the extension is an error.
    let extension = certificate.subject_alternative_name().ok()??;
    let mut names = extension
        .value
        .general_names
        .iter()
        .filter_map(|name| match (name, by) {
            (GeneralName::RFC822Name(name), NamedBy::Email)
            | (GeneralName::DNSName(name), NamedBy::Dns)
            | (GeneralName::URI(name), NamedBy::Uri) => Some(*name),
            _ => None,
        });
    match (names.next(), names.next()) {
        (Some(name), None) => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::any, proptest};
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, date_time_ymd};

    use super::*;

    fn certificate(adjust: impl Fn(&mut CertificateParams)) -> Vec<u8> {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        adjust(&mut parameters);
        let key = KeyPair::generate().unwrap();
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    fn named(certificate: &[u8], by: NamedBy) -> Option<String> {
        name(&read(certificate).unwrap(), by).map(str::to_owned)
    }

    fn common_name(certificate: &[u8]) -> Option<String> {
        named(certificate, NamedBy::CommonName)
    }

    #[test]
    fn common_name_is_found_among_other_names() {
        let shown = certificate(|parameters| {
            let names = &mut parameters.distinguished_name;
            names.push(DnType::OrganizationName, "a".repeat(300));
            names.push(DnType::CommonName, "dëvice-1");
            names.push(DnType::CountryName, "DE");
        });
        assert_eq!(common_name(&shown).as_deref(), Some("dëvice-1"));
        let nameless = certificate(|parameters| {
            parameters
                .distinguished_name
                .push(DnType::OrganizationName, "a");
        });
        assert_eq!(common_name(&nameless), None);
    }

    /// A common name that is another kind of attribute to the library that makes certificates, so
    /// that there can be two.
    fn another_common_name(name: &str) -> impl Fn(&mut CertificateParams) {
        let name = name.to_owned();
        move |parameters| {
            let names = &mut parameters.distinguished_name;
            names.push(DnType::CommonName, "a");
            names.push(DnType::CustomDnType(vec![2, 5, 4, 3]), name.clone());
        }
    }

    #[test]
    fn subject_with_two_common_names_has_none() {
        for second in ["a", "b"] {
            let shown = certificate(another_common_name(second));
            assert_eq!(common_name(&shown), None);
        }
        for odd in ["a\0b", "a\nb", ""] {
            let shown = certificate(|parameters| {
                parameters.distinguished_name.push(DnType::CommonName, odd);
            });
            assert_eq!(common_name(&shown), None, "{odd:?}");
        }
    }

    #[test]
    fn alternative_names_count_by_their_kind() {
        let name = |text: &str| text.try_into().unwrap();
        let mut alternatives = vec![
            SanType::Rfc822Name(name("jo@example.org")),
            SanType::DnsName(name("device.example.org")),
            SanType::URI(name("urn:dev:7")),
            SanType::IpAddress([192, 0, 2, 1].into()),
        ];
        let show = |alternatives: &[SanType]| {
            certificate(|parameters| {
                parameters.subject_alt_names = alternatives.to_vec();
                parameters.distinguished_name.push(DnType::CommonName, "cn");
            })
        };
        let shown = show(&alternatives);
        for (by, expected) in [
            (NamedBy::CommonName, "cn"),
            (NamedBy::Email, "jo@example.org"),
            (NamedBy::Dns, "device.example.org"),
            (NamedBy::Uri, "urn:dev:7"),
        ] {
            assert_eq!(named(&shown, by).as_deref(), Some(expected));
        }
        alternatives.push(SanType::DnsName(name("second.example.org")));
        let shown = show(&alternatives);
        assert_eq!(named(&shown, NamedBy::Dns), None);
        assert!(named(&shown, NamedBy::Uri).is_some());
        let bare = show(&[]);
        assert_eq!(named(&bare, NamedBy::Uri), None);
    }

    #[test]
    fn times_are_read_in_both_forms() {
        let seconds = |year, month, day| {
            let shown = certificate(|parameters| {
                parameters.not_before = date_time_ymd(1975, 1, 1);
                parameters.not_after = date_time_ymd(year, month, day);
            });
            let validity = Validity::of(&shown).unwrap();
            assert_eq!(validity.not_before, 157_766_400);
            validity.not_after
        };
        assert_eq!(seconds(2000, 2, 29), 951_782_400);
        assert_eq!(seconds(2026, 11, 28), 1_795_824_000);
        // From 2050 on years have four digits.
        assert_eq!(seconds(2100, 3, 1), 4_107_542_400);
    }

    proptest! {
        #[test]
        fn damaged_certificates_are_no_harm(at in any::<proptest::sample::Index>(), byte: u8) {
            let mut bytes = certificate(another_common_name("b"));
            let at = at.index(bytes.len());
            bytes[at] = byte;
            for bytes in [&bytes[..], &bytes[at..], &bytes[..at]] {
                Validity::of(bytes);
                if let Some(certificate) = read(bytes) {
                    for (_name, by) in NamedBy::ALL {
                        name(&certificate, by);
                    }
                }
            }
        }
    }
}
