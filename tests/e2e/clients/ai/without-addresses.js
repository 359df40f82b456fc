// Takes out of package-lock.json what names a host: where packages came from, and how to pay for them.
const fs = require("fs");
const lock = JSON.parse(fs.readFileSync("package-lock.json", "utf8"));
for (const entry of Object.values(lock.packages)) {
  delete entry.resolved;
  delete entry.funding;
}
fs.writeFileSync("package-lock.json", JSON.stringify(lock, null, 2) + "\n");
