//! Certificate authorities, in files of their own.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use toml::de::DeValue;

use super::error::Problem;
use super::model::Authorities;
use super::reader::invalid;
use super::value::Meaning;

/// Those of the file that the value names.
pub(super) fn authorities(value: &DeValue<'_>) -> Meaning<Authorities> {
    let path = value.as_str().filter(|path| Path::new(path).is_absolute());
    let Some(path) = path else {
        return Err(invalid("the path of a file, from the root", value));
    };
    let text = std::fs::read(path).map_err(|cause| Problem::FileUnreadable {
        file: path.to_owned(),
        cause,
    })?;
    read(&text).map_err(|reason| Problem::NoAuthorities {
        file: path.to_owned(),
        reason,
    })
}

/// All certificates of a PEM file, each of which has to be understood: one that is not would be missed
/// on the day that it is needed.
fn read(text: &[u8]) -> Result<Authorities, String> {
    let found = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| error.to_string())?;
    if found.is_empty() {
        return Err("nothing between BEGIN CERTIFICATE and END".to_owned());
    }
    let mut store = RootCertStore::empty();
    for certificate in &found {
        let added = store.add(certificate.clone());
        added.map_err(|error| error.to_string())?;
    }
    Ok(Authorities::new(found))
}
