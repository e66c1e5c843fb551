//! Which tokens are good, and which keys.

mod issuer;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::FutureExt;
use proptest::{prelude::any, proptest};
use serde_json::json;

use super::*;
use crate::{config::Authenticator, peer::Peer, testing::Dir};
pub(crate) use issuer::{ALGORITHMS, Issuer, claims, private, seconds_from_now};

fn try_load(settings: &str) -> Result<Tokens, JwtError> {
    let text = format!("node = \"n\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n{settings}");
    let config = config::Config::parse(&text).unwrap();
    let [Authenticator::Jwt(settings)] = &config.access().authenticators[..] else {
        panic!("one authenticator");
    };
    Tokens::load(settings, std::iter::empty())
}

fn load(settings: &str) -> Tokens {
    try_load(settings).unwrap()
}

/// What becomes of a token as a password: the user, or why not; `None` if it is somebody else's.
fn judge(tokens: &Tokens, token: &str) -> Option<Result<String, Denial>> {
    judge_as(tokens, None, token)
}

fn judge_as(
    tokens: &Tokens,
    username: Option<&str>,
    token: &str,
) -> Option<Result<String, Denial>> {
    let login = Login {
        client_id: "c",
        username,
        password: Some(&Secret::new(token.as_bytes())),
        peer: &Peer::for_tests(),
    };
    match tokens.judge(&login).now_or_never().unwrap() {
        Answer::Allow(identity) => Some(Ok(identity.user().unwrap().to_owned())),
        Answer::Deny(denial) => Some(Err(denial)),
        Answer::Ignore => None,
    }
}

fn alice() -> Option<Result<String, Denial>> {
    Some(Ok("alice".to_owned()))
}

fn flawed(flaw: Flaw) -> Option<Result<String, Denial>> {
    Some(Err(Denial::Token(flaw)))
}

#[test]
fn tokens_of_every_algorithm_are_known_by_their_signature() {
    let dir = Dir::new();
    for algorithm in ALGORITHMS {
        let issuer = Issuer::new(algorithm);
        let tokens = load(&issuer.settings(&dir));
        let token = issuer.token(&claims());
        assert_eq!(judge(&tokens, &token), alice(), "{algorithm}");
        let (message, signature) = token.rsplit_once('.').unwrap();
        let other = issuer.token(&json!({"sub": "bob", "exp": seconds_from_now(3600)}));
        let (_message, others) = other.rsplit_once('.').unwrap();
        for wrong in [
            format!("{message}.{others}"),
            format!("{message}."),
            message.to_owned(),
            format!("{token}.{signature}"),
            format!("{message}.{}", &signature[..signature.len() - 4]),
        ] {
            assert_eq!(judge(&tokens, &wrong), None, "{algorithm}: {wrong}");
        }
    }
}

#[test]
fn keys_of_a_set_are_picked_by_kind_and_name() {
    let dir = Dir::new();
    let issuers: Vec<_> = ["RS256", "ES256", "ES384", "EdDSA", "ES256"]
        .map(Issuer::new)
        .into();
    let mut keys: Vec<_> = issuers
        .iter()
        .enumerate()
        .map(|(index, issuer)| issuer.jwk(&format!("k{index}")))
        .collect();
    keys.push(json!({"kty": "new", "kid": "k9"}));
    keys.push(Issuer::new("HS256").jwk("secret"));
    let path = dir.write("set", &json!({"keys": keys}).to_string());
    let settings = format!(
        "[[access.authenticator]]\ntype = \"jwt\"\njwks_file = {path:?}\n\
         algorithms = [\"RS256\", \"ES256\", \"ES384\", \"EdDSA\"]\n"
    );
    let tokens = load(&settings);
    assert_eq!(tokens.count_keys(), 5);
    for (index, issuer) in issuers.iter().enumerate() {
        let named = |name: &str| json!({"alg": issuer.algorithm(), "kid": name});
        let own = issuer.token_with(&named(&format!("k{index}")), &claims());
        assert_eq!(judge(&tokens, &own), alice(), "{index}");
        assert_eq!(judge(&tokens, &issuer.token(&claims())), alice());
        let others = issuer.token_with(&named("k7"), &claims());
        assert_eq!(judge(&tokens, &others), None);
    }
    let secret = Issuer::new("HS256").token(&claims());
    assert_eq!(judge(&tokens, &secret), None);
}

#[test]
fn tokens_that_nobody_has_signed_are_nobodys() {
    let dir = Dir::new();
    for algorithm in ["HS256", "RS256"] {
        let issuer = Issuer::new(algorithm);
        let tokens = load(&issuer.settings(&dir));
        for none in ["none", "None", "NONE", ""] {
            let signed = issuer.token_with(&json!({"alg": none}), &claims());
            let (message, _signature) = signed.rsplit_once('.').unwrap();
            assert_eq!(judge(&tokens, &signed), None);
            assert_eq!(judge(&tokens, &format!("{message}.")), None);
        }
    }
}

#[test]
fn public_key_is_no_secret_whatever_the_token_says() {
    let dir = Dir::new();
    for algorithm in ["RS256", "ES256", "EdDSA"] {
        let issuer = Issuer::new(algorithm);
        let tokens = load(&issuer.settings(&dir));
        let der = URL_SAFE_NO_PAD.encode(issuer.key());
        for secret in [issuer.key(), issuer.key().trim_end(), &der] {
            let forger = Issuer::of_secret(secret.as_bytes());
            assert_eq!(judge(&tokens, &forger.token(&claims())), None);
            let lying = forger.token_with(&json!({"alg": algorithm}), &claims());
            assert_eq!(judge(&tokens, &lying), None);
        }
    }
}

#[test]
fn algorithms_that_the_file_does_not_name_do_not_count() {
    let dir = Dir::new();
    let tokens = load(&Issuer::new("RS256").settings(&dir));
    for algorithm in ["RS384", "RS512", "PS256"] {
        let token = Issuer::new(algorithm).token(&claims());
        assert_eq!(judge(&tokens, &token), None, "{algorithm}");
    }
    let issuer = Issuer::new("HS256");
    let tokens = load(&issuer.settings(&dir));
    let own_key = issuer.token_with(
        &json!({"alg": "HS256", "jwk": {"kty": "oct", "k": "AAAA"}, "jku": "http://x/"}),
        &claims(),
    );
    assert_eq!(
        judge(&tokens, &own_key),
        alice(),
        "such hints are not followed"
    );
    let critical = issuer.token_with(&json!({"alg": "HS256", "crit": ["b64"]}), &claims());
    assert_eq!(judge(&tokens, &critical), None);
}

#[test]
fn what_a_good_token_has_to_say() {
    let dir = Dir::new();
    let issuer = Issuer::new("HS256");
    let settings = format!(
        "{}issuer = \"https://login\"\naudience = \"mqtt\"\nleeway = \"5s\"\n",
        issuer.settings(&dir)
    );
    let tokens = load(&settings);
    let good = json!({
        "sub": "alice", "exp": seconds_from_now(60), "nbf": seconds_from_now(-60),
        "iss": "https://login", "aud": ["web", "mqtt"],
    });
    assert_eq!(judge(&tokens, &issuer.token(&good)), alice());
    for (claim, value, expected) in [
        ("exp", json!(seconds_from_now(-60)), flawed(Flaw::Expired)),
        ("exp", json!(seconds_from_now(-2)), alice()),
        ("exp", json!(f64::MAX), flawed(Flaw::Missing)),
        ("exp", json!("3000-01-01"), flawed(Flaw::Missing)),
        ("exp", Value::Null, flawed(Flaw::Missing)),
        ("nbf", json!(seconds_from_now(60)), flawed(Flaw::NotYet)),
        ("nbf", json!(seconds_from_now(2)), alice()),
        ("nbf", json!("soon"), flawed(Flaw::Other)),
        ("nbf", Value::Null, alice()),
        ("iss", json!("https://other"), flawed(Flaw::Issuer)),
        ("iss", json!(["https://login"]), flawed(Flaw::Issuer)),
        ("iss", Value::Null, flawed(Flaw::Missing)),
        ("aud", json!("web"), flawed(Flaw::Audience)),
        ("aud", json!(["web"]), flawed(Flaw::Audience)),
        ("aud", json!("mqtt"), alice()),
        ("aud", Value::Null, flawed(Flaw::Missing)),
        ("sub", Value::Null, flawed(Flaw::User)),
        ("sub", json!(7), flawed(Flaw::User)),
        ("sub", json!(["alice"]), flawed(Flaw::Other)),
        ("nbf", json!([1]), flawed(Flaw::Other)),
        ("sub", json!(""), flawed(Flaw::User)),
        ("sub", json!("a\nb"), flawed(Flaw::User)),
    ] {
        let mut claims = good.clone();
        claims[claim] = value.clone();
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(claim);
        }
        let judged = judge(&tokens, &issuer.token(&claims));
        assert_eq!(judged, expected, "{claim} {value}");
    }
    let plain = load(&issuer.settings(&dir));
    for audience in [
        json!(["web", "mqtt"]),
        json!("web"),
        json!([]),
        json!(["web", 1]),
        json!({"web": 1}),
        json!(7),
    ] {
        let mut claims = good.clone();
        claims["aud"] = audience;
        let judged = judge(&plain, &issuer.token(&claims));
        assert_eq!(judged, flawed(Flaw::Audience), "{claims}");
    }
    let judged = judge(&plain, &issuer.token(&json!("no object")));
    assert_eq!(judged, flawed(Flaw::Other), "it is signed");
}

#[test]
fn tokens_that_take_long_to_read_are_nobodys() {
    let dir = Dir::new();
    let issuer = Issuer::new("HS256");
    let tokens = load(&issuer.settings(&dir));
    let with = |header: usize, claim: usize| {
        let header = json!({"alg": "HS256", "x5c": ["x".repeat(header)]});
        let mut claims = claims();
        claims["more"] = "x".repeat(claim).into();
        judge(&tokens, &issuer.token_with(&header, &claims))
    };
    assert_eq!(with(6_000, 6_000), alice());
    assert_eq!(with(7_000, 0), None);
    assert_eq!(with(0, 13_000), None);
}

#[test]
fn user_is_the_claim_that_the_file_says() {
    let dir = Dir::new();
    let issuer = Issuer::new("ES256");
    let section = issuer.settings(&dir);
    let tokens = load(&format!("{section}user_claim = \"device\"\n"));
    let token = issuer.token(&json!({"device": "alice", "exp": seconds_from_now(60)}));
    assert_eq!(judge(&tokens, &token), alice());
    assert_eq!(judge(&tokens, &issuer.token(&claims())), flawed(Flaw::User));
    let tokens = load(&format!("{section}same_user_name = true\n"));
    let token = issuer.token(&claims());
    assert_eq!(judge_as(&tokens, Some("alice"), &token), alice());
    for other in [None, Some("bob"), Some("")] {
        let judged = judge_as(&tokens, other, &token);
        assert_eq!(judged, Some(Err(Denial::OtherName)));
    }
    let tokens = load(&format!("{section}from = \"username\"\n"));
    assert_eq!(judge_as(&tokens, Some(&token), "whatever"), alice());
    assert_eq!(judge_as(&tokens, Some("alice"), &token), None);
}

#[test]
fn list_of_topics_that_cannot_be_meant_lets_nobody_in() {
    let dir = Dir::new();
    let issuer = Issuer::new("EdDSA");
    let tokens = load(&format!("{}acl_claim = \"acl\"\n", issuer.settings(&dir)));
    let mut claims = claims();
    assert_eq!(judge(&tokens, &issuer.token(&claims)), alice());
    claims["acl"] = json!({"publish": ["a/%u"]});
    assert_eq!(judge(&tokens, &issuer.token(&claims)), alice());
    claims["acl"] = json!({"publish": ["#/a"]});
    let judged = judge(&tokens, &issuer.token(&claims));
    assert_eq!(judged, flawed(Flaw::Grants));
    claims["acl"] = Value::Null;
    let judged = judge(&tokens, &issuer.token(&claims));
    assert_eq!(judged, flawed(Flaw::Grants));
}

#[test]
fn keys_that_cannot_be_used_are_refused_and_not_told() {
    let dir = Dir::new();
    let told = |key: &str, text: &str, algorithms: &str| {
        let path = private(&dir, "file", text);
        let settings = format!(
            "[[access.authenticator]]\ntype = \"jwt\"\n{key} = {path:?}\nalgorithms = {algorithms}\n"
        );
        match try_load(&settings) {
            Ok(_tokens) => panic!("{text} was taken"),
            Err(error) => {
                let debug = format!("{error:?}");
                format!("{debug} {:#}", anyhow::Error::new(error))
            }
        }
    };
    let es256 = Issuer::new("ES256");
    let key = es256.key();
    for (kind, text, algorithms, expected) in [
        ("secret_file", "short and secret", "[\"HS256\"]", "32 bytes"),
        (
            "secret_file",
            &"k".repeat(63),
            "[\"HS256\", \"HS512\"]",
            "64 bytes",
        ),
        ("public_key_file", "key", "[\"ES256\"]", "BEGIN PUBLIC KEY"),
        (
            "public_key_file",
            include_str!("testdata/rsa.pem"),
            "[\"RS256\"]",
            "BEGIN PUBLIC KEY",
        ),
        (
            "public_key_file",
            &key.replace("END", "EN"),
            "[\"ES256\"]",
            "no PEM file",
        ),
        (
            "public_key_file",
            key,
            "[\"ES384\", \"RS256\"]",
            "suits none",
        ),
        (
            "public_key_file",
            include_str!("testdata/rsa-1024.pub.pem"),
            "[\"RS256\"]",
            "2048",
        ),
        (
            "public_key_file",
            include_str!("testdata/p521.pub.pem"),
            "[\"ES384\"]",
            "P-384",
        ),
        ("jwks_file", "{}", "[\"ES256\"]", "no JSON Web Key Set"),
        (
            "jwks_file",
            "{\"keys\": []}",
            "[\"ES256\"]",
            "none of its keys",
        ),
    ] {
        let told = told(kind, text, algorithms);
        assert!(told.contains(expected), "{told}");
        assert!(!told.contains("secret") || kind != "secret_file", "{told}");
        assert!(!told.contains("kkkk"), "{told}");
    }
    let mut encrypts = es256.jwk("k");
    encrypts["use"] = "enc".into();
    let mut other = es256.jwk("k");
    other["alg"] = "ES384".into();
    let set = json!({"keys": [encrypts, other]}).to_string();
    let unfit = told("jwks_file", &set, "[\"ES256\", \"ES384\"]");
    assert!(unfit.contains("none of its keys"), "{unfit}");
    let many: Vec<_> = (0..33).map(|n| es256.jwk(&n.to_string())).collect();
    let set = json!({"keys": many}).to_string();
    let too_many = told("jwks_file", &set, "[\"ES256\"]");
    assert!(too_many.contains("more than 32 keys"), "{too_many}");
    let open = dir.write("open", &"k".repeat(32));
    let settings = format!(
        "[[access.authenticator]]\ntype = \"jwt\"\nsecret_file = {open:?}\n\
         algorithms = [\"HS256\"]\n"
    );
    let Err(error) = try_load(&settings) else {
        panic!("everybody knows the secret");
    };
    assert!(error.to_string().contains("chmod"), "{error}");
}

#[test]
fn tokens_are_known_again_after_a_reload_by_settings_and_key() {
    let dir = Dir::new();
    let (issuer, other) = (Issuer::new("ES256"), Issuer::new("ES256"));
    let section = issuer.settings(&dir);
    let before = load(&section);
    let login = Secret::new(issuer.token(&claims()).as_bytes());
    let login = Login {
        client_id: "c",
        username: None,
        password: Some(&login),
        peer: &Peer::for_tests(),
    };
    let Answer::Allow(Identity {
        proof: Proof::Token { settings, key },
        until: Some(_end),
        ..
    }) = before.judge(&login).now_or_never().unwrap()
    else {
        panic!("a good token");
    };
    assert!(load(&section).vouches(&settings, &key));
    let both = format!("{}{}", other.key(), issuer.key());
    private(&dir, "key", &both);
    assert!(load(&section).vouches(&settings, &key));
    let narrower = format!("{section}audience = \"mqtt\"\n");
    assert!(!load(&narrower).vouches(&settings, &key));
    private(&dir, "key", other.key());
    assert!(!load(&section).vouches(&settings, &key));
}

proptest! {
    #[test]
    fn damaged_tokens_are_no_harm(at in any::<proptest::sample::Index>(), byte in 0..128u8) {
        let dir = Dir::new();
        let issuer = Issuer::new("HS256");
        let tokens = load(&issuer.settings(&dir));
        let token = issuer.token(&claims());
        let mut bytes = token.clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let damaged = String::from_utf8(bytes).unwrap();
        if damaged != token {
            assert_eq!(judge(&tokens, &damaged), None, "{damaged}");
        }
        judge(&tokens, &token[at..]);
        judge(&tokens, &token[..at]);
    }
}
