fn steady_tanh(x: f32) -> f32 { return tanh(clamp(x, -20.0, 20.0)); }  // some drivers' tanh overflows
fn silu(x: f32) -> f32 { return x / (1.0 + exp(-x)); }
fn gelu_tanh(x: f32) -> f32 { return 0.5 * x * (1.0 + steady_tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))); }  // Hendrycks & Gimpel 2016
fn relu(x: f32) -> f32 { return select(0.0, x, x > 0.0 || x != x); }
// erf to 1.2e-7 of itself (Numerical Recipes' erfc, Press et al. 1992, §6.2).
fn gelu_erf(x: f32) -> f32 {
  let z = abs(x) * 0.7071067811865476;
  let u = 1.0 / (1.0 + 0.5 * z);
  let p = u * exp(-z * z - 1.26551223 + u * (1.00002368 + u * (0.37409196 + u * (0.09678418 + u * (-0.18628806 +
          u * (0.27886807 + u * (-1.13520398 + u * (1.48851587 + u * (-0.82215223 + u * 0.17087277)))))))));
  return 0.5 * x * select(p, 2.0 - p, x >= 0.0);
}
