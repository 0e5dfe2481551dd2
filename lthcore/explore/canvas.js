// A square to draw in. What is drawn goes to Python as `pixels`: 112 x 112 bytes, 0 blank to 255 ink; none where it is blank.
const SIDE = 280, SENT = 112, PEN = 22;

function render({ model, el }) {
  const canvas = document.createElement("canvas"), button = document.createElement("button");
  canvas.width = canvas.height = SIDE;
  canvas.style.cssText = "border: 1px solid #888; background: #fff; cursor: crosshair; touch-action: none; max-width: 100%";
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "draw a digit here");
  button.textContent = "clear";
  button.className = "jupyter-widgets jupyter-button widget-button";
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.lineWidth = PEN;
  pen.lineCap = pen.lineJoin = "round";
  let last = null;

  function blank() {
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, SIDE, SIDE);
  }

  function send(bytes) {
    model.set("pixels", new DataView(bytes));
    model.save_changes();
  }

  function drawn() {
    const small = document.createElement("canvas");
    small.width = small.height = SENT;
    const to = small.getContext("2d");
    to.drawImage(canvas, 0, 0, SENT, SENT);
    const colours = to.getImageData(0, 0, SENT, SENT).data;
    return Uint8Array.from({ length: SENT * SENT }, (_, i) => 255 - colours[4 * i]).buffer;
  }

  function at(event) {
    const scale = SIDE / canvas.clientWidth;
    return [event.offsetX * scale, event.offsetY * scale];
  }

  function stroke(from, to) {
    pen.beginPath();
    pen.moveTo(...from);
    pen.lineTo(...to);
    pen.stroke();
  }

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = at(event);
    stroke(last, last);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (last) stroke(last, (last = at(event)));
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => {
      if (last) send(drawn());
      last = null;
    });
  }
  button.addEventListener("click", () => {
    blank();
    send(new ArrayBuffer(0));
  });
  blank();
  el.append(canvas, document.createElement("br"), button);
}

export default { render };
