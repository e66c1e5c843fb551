//! Certificates and keys in PEM files. Nothing here repeats what a file holds: it may be the key.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _};

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    #[error("cannot read {path}", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is no PEM file: {what}", path = path.display())]
    Pem { path: PathBuf, what: &'static str },
    #[error("nothing between BEGIN CERTIFICATE and END in {path}", path = path.display())]
    NoCertificate { path: PathBuf },
    #[error("no private key that has no password in {path}", path = path.display())]
    NoKey { path: PathBuf },
}

/// The certificates of a PEM file, at least one.
///
/// # Errors
///
/// Names the file that cannot be used.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let text = read(path)?;
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let path = path.to_owned();
    match found {
        Ok(found) if found.is_empty() => Err(PemError::NoCertificate { path }),
        Ok(found) => Ok(found),
        Err(error) => Err(refused(path, &error)),
    }
}

/// The first private key of a PEM file.
///
/// # Errors
///
/// Names the file that cannot be used.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    let text = read(path)?;
    let path = path.to_owned();
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        if matches!(error, pem::Error::NoItemsFound) {
            PemError::NoKey { path }
        } else {
            refused(path, &error)
        }
    })
}

/// What is wrong with a PEM file, without the library's own words, which quote the line.
#[must_use]
pub fn refused(path: PathBuf, error: &pem::Error) -> PemError {
    let what = match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no END line",
        pem::Error::IllegalSectionStart { .. } => {
            "a BEGIN line has no five dashes at its end (are the line breaks there?)"
        }
        pem::Error::Base64Decode(_) => "a section is not base64",
        pem::Error::SectionTooLarge => "a section is too large",
        pem::Error::Io(_) | pem::Error::NoItemsFound | _ => "it cannot be read",
    };
    PemError::Pem { path, what }
}

/// All of a file.
///
/// # Errors
///
/// Names the file that cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>, PemError> {
    fs::read(path).map_err(|source| PemError::Read {
        path: path.to_owned(),
        source,
    })
}
