// The page of one piece, which is in the page itself.

const piece = JSON.parse(element("piece-data").textContent);
const panel = new PiecePanel(piece.names);
panel.show(pieceNotes(unpackNotes(piece.notes), piece.seconds, piece.tempo), piece.audio);
