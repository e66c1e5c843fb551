//! Sends an e-mail by a server.

use std::time::Duration;

use lettre::{
    AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    message::{
        Mailbox,
        header::{ContentType, HeaderName, HeaderValue},
    },
    transport::smtp::{
        self,
        authentication::Credentials,
        client::{Certificate, CertificateStore, Tls, TlsParameters},
    },
};
use tokio::time;

use super::{
    SAID, SecretError, one_line, secret,
    tls::{self, TlsError},
};
use crate::config::model::{Email, MailTls};

/// Why an e-mail was not taken.
#[derive(Debug, thiserror::Error)]
pub enum EmailError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("an address is none: {0}")]
    Address(#[from] lettre::address::AddressError),
    #[error("the message cannot be made: {0}")]
    Message(#[from] lettre::error::Error),
    #[error("the server has refused the login: {}", reason(.0))]
    Login(#[source] smtp::Error),
    #[error("the server has not taken it: {}", reason(.0))]
    Smtp(#[source] smtp::Error),
    #[error("not taken within {0:?}")]
    TimedOut(Duration),
}

/// The answers to a login (RFC 4954, 6) that say that another one is needed.
const LOGIN_REFUSED: [u16; 4] = [530, 534, 535, 538];

impl From<smtp::Error> for EmailError {
    fn from(error: smtp::Error) -> Self {
        let code = error.status().map(u16::from);
        match code {
            Some(code) if LOGIN_REFUSED.contains(&code) => Self::Login(error),
            Some(_) | None => Self::Smtp(error),
        }
    }
}

/// What went wrong, with its causes, on one line: a part of it is what the server has said.
fn reason(error: &smtp::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    one_line(&text).chars().take(SAID).collect()
}

impl EmailError {
    /// Whether another attempt may go better.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Smtp(error) => !error.is_permanent(),
            Self::TimedOut(_) => true,
            Self::Login(_)
            | Self::Secret(_)
            | Self::Tls(_)
            | Self::Address(_)
            | Self::Message(_) => false,
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
        .tls(tls_of(mail).await?);
    if let Some((user, file)) = mail.login() {
        transport = transport.credentials(Credentials::new(user.to_owned(), secret(file)?));
    }
    transport.build().send(message).await?;
    Ok(())
}

async fn tls_of(mail: &Email) -> Result<Tls, EmailError> {
    let wrap = match mail.tls() {
        MailTls::None => return Ok(Tls::None),
        MailTls::StartTls => Tls::Required,
        MailTls::Always => Tls::Wrapper,
    };
    let mut builder = TlsParameters::builder(mail.server().to_owned());
    if let Some(authorities) = mail.authorities() {
        builder = builder.certificate_store(CertificateStore::None);
        for certificate in authorities.certificates() {
            builder = builder.add_root_certificate(Certificate::from_der(certificate.to_vec())?);
        }
    }
    let parameters = tls::aside(move || builder.build_rustls()).await?;
    Ok(wrap(parameters?))
}

#[cfg(test)]
mod tests;
