// Starts Swagger UI with the options of the page, in the colours that the browser prefers.
const dark = matchMedia("(prefers-color-scheme: dark)");
const paint = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
paint();
dark.addEventListener("change", paint);

SwaggerUIBundle({
  presets: [SwaggerUIBundle.presets.apis],
  ...JSON.parse(document.getElementById("swagger-ui").dataset.options),
});
