//! Sends an e-mail by a server.

use std::time::Duration;

use lettre::{
    AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    message::{
        Mailbox,
        header::{ContentType, HeaderName, HeaderValue},
    },
    transport::smtp::{
        authentication::Credentials,
        client::{Certificate, Tls, TlsParameters},
    },
};
use tokio::time;

use super::{
    SecretError, secret,
    tls::{self, TlsError},
};
use crate::config::model::{Email, MailTls};

/// Why an e-mail was not taken.
#[derive(Debug, thiserror::Error)]
pub enum EmailError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Authorities(#[from] TlsError),
    #[error("an address is none: {0}")]
    Address(#[from] lettre::address::AddressError),
    #[error("the message cannot be made: {0}")]
    Message(#[from] lettre::error::Error),
    #[error("the server has not taken it: {}", reason(.0))]
    Smtp(#[from] lettre::transport::smtp::Error),
    #[error("not taken within {0:?}")]
    TimedOut(Duration),
}

/// What went wrong, with its causes.
fn reason(error: &lettre::transport::smtp::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

impl EmailError {
    /// Whether another attempt may go better.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Smtp(error) => !error.is_permanent(),
            Self::TimedOut(_) => true,
            Self::Secret(_) | Self::Authorities(_) | Self::Address(_) | Self::Message(_) => false,
        }
    }
}

/// Sends it once.
///
/// # Errors
///
/// If the server has not taken it by then.
pub async fn send(
    mail: &Email,
    subject: &str,
    body: String,
    limit: Duration,
) -> Result<(), EmailError> {
    let attempt = time::timeout(limit, attempt(mail, subject, body, limit)).await;
    attempt.unwrap_or(Err(EmailError::TimedOut(limit)))
}

async fn attempt(
    mail: &Email,
    subject: &str,
    body: String,
    limit: Duration,
) -> Result<(), EmailError> {
    let mut builder = Message::builder()
        .from(mail.from().parse::<Mailbox>()?)
        // Nobody answers to it with a note of absence (RFC 3834).
        .raw_header(HeaderValue::new(
            HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".to_owned(),
        ))
        .header(ContentType::TEXT_PLAIN)
        .subject(subject);
    for to in mail.to() {
        builder = builder.to(to.parse::<Mailbox>()?);
    }
    let message = builder.body(body)?;
    let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(mail.server())
        .port(mail.port())
        .timeout(Some(limit))
        .tls(tls_of(mail)?);
    if let Some((user, file)) = mail.login() {
        transport = transport.credentials(Credentials::new(user.to_owned(), secret(file)?));
    }
    transport.build().send(message).await?;
    Ok(())
}

fn tls_of(mail: &Email) -> Result<Tls, EmailError> {
    let parameters = || -> Result<TlsParameters, EmailError> {
        let mut builder = TlsParameters::builder(mail.server().to_owned());
        if let Some(file) = mail.ca_file() {
            for certificate in tls::certificates(file)? {
                builder =
                    builder.add_root_certificate(Certificate::from_der(certificate.to_vec())?);
            }
        }
        Ok(builder.build_rustls()?)
    };
    Ok(match mail.tls() {
        MailTls::None => Tls::None,
        MailTls::StartTls => Tls::Required(parameters()?),
        MailTls::Always => Tls::Wrapper(parameters()?),
    })
}
