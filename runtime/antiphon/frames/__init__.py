"""What flows through a pipeline (`frames`), and how it crosses processes (`codec`)."""
