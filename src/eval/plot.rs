//! nDCG@10 against depth: how many of the candidates, in their own order, are reranked. A reranker
//! can get worse with more, when it likes documents that the first stage rightly placed low.

use std::path::Path;

use plotters::prelude::*;

use super::EvalError;

/// A line of the plot.
#[derive(Debug)]
pub struct Curve {
    /// Its name.
    pub name: String,
    /// (depth, mean nDCG@10), by depth.
    pub points: Vec<(usize, f64)>,
}

/// Writes the plot as SVG.
///
/// # Errors
/// If it can't be drawn or written.
pub fn depth_plot(path: &Path, title: &str, curves: &[Curve]) -> Result<(), EvalError> {
    draw(path, title, curves).map_err(|error| EvalError::Plot(error.to_string()))
}

fn draw(path: &Path, title: &str, curves: &[Curve]) -> Result<(), Box<dyn std::error::Error>> {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let deepest = points().map(|p| p.0).max().unwrap_or(1);
    let low = points().map(|p| p.1).fold(1.0, f64::min);
    let high = points().map(|p| p.1).fold(0.0, f64::max);
    let room = ((high - low) / 10.0).max(0.005);

    let area = SVGBackend::new(path, (760, 460)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(56)
        .build_cartesian_2d(0..deepest, (low - room).max(0.0)..(high + room).min(1.0))?;
    chart
        .configure_mesh()
        .x_desc("candidates reranked")
        .y_desc("nDCG@10")
        .light_line_style(WHITE)
        .draw()?;
    for (i, curve) in curves.iter().enumerate() {
        let color = Palette99::pick(i).to_rgba();
        let line = LineSeries::new(curve.points.iter().copied(), color.stroke_width(2));
        let legend = move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color);
        chart.draw_series(line)?.label(&curve.name).legend(legend);
    }
    chart
        .configure_series_labels()
        .background_style(WHITE)
        .border_style(BLACK)
        .position(SeriesLabelPosition::LowerRight)
        .draw()?;
    area.present()?;
    Ok(())
}
