// A question whose documents a search by words would give in the wrong order.

const SCORED = [
  [14.2, "In autumn the park is closed to bicycles. Leave them at the gate, where the color of your ticket tells when to change trains."],
  [13.1, "Raking leaves in autumn takes time. Gardeners compost them, or spread them as a mulch between the beds."],
  [12.7, "Leave the color of the wall as it is, or change it in autumn, when paint is cheaper."],
  [11.9, "Chlorophyll absorbs red and blue light. It gives plants their green color for most of the year."],
  [9.4, "In autumn the days grow short. Trees stop making chlorophyll, the green pigment of their leaves. As it breaks down, yellow and orange pigments that were there all along become visible. Maples are planted in many parks."],
  [8.8, "Some trees also make red pigments when sugar is trapped in their leaves. Cold nights and sunny days make the red more intense."],
  [6.3, "Evergreen trees keep their needles in winter. A layer of wax protects them from frost."],
];

export const EXAMPLE = {
  query: "Why do leaves change color in autumn?",
  text: SCORED.map(([score, text]) => JSON.stringify({ text, first_stage_score: score })).join("\n"),
  form: "json",
  formChosen: true,
};
