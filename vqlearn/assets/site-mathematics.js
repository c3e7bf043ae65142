/* A schedule, its jumps, and Bayes' rule for one token, as in notebooks 02 to 05 and in vqlearn.schedule and
   vqlearn.transition, whose numbers the tests compare. A schedule is { codes, steps, alphaBar, gammaBar }. */
const vqlearn = (() => {
  "use strict";
  const quotient = (a, b) => (b > 0 ? a / b : 0);
  const times = steps => Array.from({ length: steps + 1 }, (_, t) => t);

  /* Curves from clean data to these shares at t = T, on a straight line or a quarter of a cosine. */
  const toEnds = (codes, steps, kept, masked, shape = "straight line") => {
    const gone = times(steps).map(t => (shape === "cosine" ? 1 - Math.cos((t / steps) * Math.PI / 2) : t / steps));
    return { codes, steps, alphaBar: gone.map(g => 1 - (1 - kept) * g), gammaBar: gone.map(g => masked * g) };
  };

  /* Straight lines between the published values at t = 1 and t = T (VQ-Diffusion, section 5.1). */
  const paper = (codes, steps) => {
    const line = (start, end) => t => start + (end - start) * (steps > 1 ? (t - 1) / (steps - 1) : 1);
    const curve = (first, at) => times(steps).map(t => (t ? at(t) : first));
    return { codes, steps, alphaBar: curve(1, line(0.99999, 0.000009)), gammaBar: curve(0, line(0.000009, 0.9)) };
  };

  /* Shares of q(x_t | x_s): keep, each of the codes, mask. Eq. (4.3); without differences of nearly equal numbers. */
  const between = ({ codes, alphaBar, gammaBar }, s, t) => {
    if (s === t) return { alpha: 1, beta: 0, gamma: 0 };
    const replaced = at => Math.max(0, 1 - gammaBar[at] - alphaBar[at]);
    const seen = 1 - gammaBar[s], kept = alphaBar[s];
    const visible = Math.min(1, quotient(1 - gammaBar[t], seen));
    const gain = quotient(replaced(t) * kept - alphaBar[t] * replaced(s), seen * kept);
    return {
      alpha: Math.min(quotient(alphaBar[t], kept), visible),
      beta: (kept > 0 ? Math.max(0, gain) : visible) / codes,
      gamma: seen > 0 ? Math.max(0, (gammaBar[t] - gammaBar[s]) / seen) : 1,
    };
  };

  /* q(x_t = to | x_s = from); the mask is the last of codes + 1 states. Eq. (2.2). */
  const probability = ({ codes }, { alpha, beta, gamma }, from, to) => {
    if (from === codes) return to === codes ? 1 : 0;
    return to === codes ? gamma : beta + (to === from ? alpha : 0);
  };

  /* Prior q(x_s | x_0), likelihood q(x_t | x_s) and posterior q(x_s | x_t, x_0) for every x_s. Eq. (5.1); the posterior
     is null if x_t cannot have come from x_0. */
  const bayes = (schedule, x0, xt, s, t) => {
    const states = times(schedule.codes);
    const first = between(schedule, 0, s), then = between(schedule, s, t);
    const prior = states.map(k => probability(schedule, first, x0, k));
    const likelihood = states.map(k => probability(schedule, then, k, xt));
    const evidence = states.reduce((sum, k) => sum + prior[k] * likelihood[k], 0);
    return { prior, likelihood, posterior: evidence > 0 ? states.map(k => prior[k] * likelihood[k] / evidence) : null };
  };

  return { toEnds, paper, between, bayes };
})();
