// A question whose documents a search by words would give in the wrong order.

const SCORED = [
  [14.2, "Onion soup is a dish of onions cooked slowly in butter and broth. Cut the onions into thin rings, and let them cook until they are brown."],
  [13.1, "Many people cry when they cut onions. Cooks try goggles, a burning candle or a piece of bread in the mouth, with little success."],
  [12.7, "Onions make a cry for help in this comedy about a cook who can't make a cut. The critics wept, and not for joy."],
  [11.9, "A sharp knife damages fewer cells. If the bulb is chilled first, the enzyme works more slowly, and less of the irritating gas reaches the eyes."],
  [9.4, "When the cells of the bulb are broken, an enzyme turns its sulfur compounds into a volatile gas. The gas reaches the eyes, where it becomes a mild acid, and the glands make tears to wash it away. Onions were grown in Egypt five thousand years ago."],
  [8.8, "China and India grow most of the world's onions. The crop is dried in the field before it is stored."],
  [6.3, "Tears keep the surface of the eye wet. They carry oxygen, and wash out dust."],
];

export const EXAMPLE = {
  query: "Why do onions make you cry when you cut them?",
  text: SCORED.map(([score, text]) => JSON.stringify({ text, first_stage_score: score })).join("\n"),
  form: "json",
  formChosen: true,
};
