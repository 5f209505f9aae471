"""Changes as files, wherever they lie: formats, compression, folders by value, sizes, and names that a repetition comes to again."""
