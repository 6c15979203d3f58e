//! A scene as PNG, drawn from its SVG with an embedded font, so that it looks the same on a machine
//! without fonts.

use crate::chart::Scene;
use crate::error::ReportError;
use crate::svg::svg;
use resvg::tiny_skia::{Color, Pixmap, Transform};
use resvg::usvg::{Options, Tree};
use std::sync::Arc;

/// Pixels per SVG unit, so that text is sharp on a dense display and on paper.
const SCALE: f32 = 2.0;

/// Draws `scene` as a PNG file.
///
/// # Errors
/// When the picture is too large to draw.
pub fn png(scene: &Scene) -> Result<Vec<u8>, ReportError> {
    let failed = |why: String| ReportError::Draw { title: scene.title.clone(), why };
    let mut options = Options::default();
    let fonts = Arc::make_mut(&mut options.fontdb);
    fonts.load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
    let family = fonts.faces().next().and_then(|f| Some(f.families.first()?.0.clone()));
    let family = family.ok_or_else(|| failed("the embedded font cannot be read".to_owned()))?;
    fonts.set_sans_serif_family(family.clone());
    options.font_family = family;
    let tree = Tree::from_str(&svg(scene), &options).map_err(|e| failed(e.to_string()))?;
    let size = tree.size().to_int_size().scale_by(SCALE);
    let size = size.ok_or_else(|| failed("it has no area".to_owned()))?;
    let pixmap = Pixmap::new(size.width(), size.height());
    let mut pixmap = pixmap.ok_or_else(|| failed("it is too large".to_owned()))?;
    pixmap.fill(Color::WHITE);
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixmap.as_mut());
    pixmap.encode_png().map_err(|e| failed(e.to_string()))
}
